// What stands in a file beside the author's words: notes, speakers, stage directions, page numbers. It is shown in its
// place, looks different, and is left out of what is selected and copied.
import { h } from "./dom.js";
import { t } from "./i18n.js";

// Kinds that stand inside a line; the others have a line of their own.
const INSIDE = new Set(["note", "reading", "deletion", "page", "line number", "other"]);
// Long matter that is opened only when asked for.
const CLOSED = new Set(["contents", "title page", "licence", "colophon", "transcriber", "header", "running head"]);
const MARK = /^[\s[(]*(\d{1,4}|[*†‡§]{1,3}|[a-z])[\s\])]*$/i; // only the mark of a note that stands elsewhere
export const named = (kind) => t(`kind_${kind.replaceAll(" ", "_")}`);

let notes = 0; // how many notes the section has shown so far
export const restart = () => { notes = 0; };

/** A note: a mark that opens it and closes it again. */
function note(item) {
  const number = ++notes;
  const mark = item.text.match(/^[\s[(]*(\d{1,4}|[*†‡§]{1,3})(?=[\s\]).])/)?.[1] ?? String(number);
  const text = h("span.note-text", { id: `note-${number}`, hidden: true, lang: "it", role: "note" },
    item.kind === "note" ? null : h("i", {}, `${named(item.kind)}: `), item.text.trim());
  const button = h("button.note-mark", { type: "button", "aria-expanded": "false", "aria-controls": text.id, "aria-label": `${named(item.kind)} ${mark}`, title: named(item.kind),
    onclick: () => { text.hidden = !text.hidden; button.setAttribute("aria-expanded", String(!text.hidden)); } }, mark);
  return [button, text]; // the second is what the first opens
}

/** Elements for words that stand inside a line, and what they open, which has its place after the line. */
export function inside(item) {
  if (item.kind === "page") return [h("span.apart.page", { title: named("page") }, item.text.trim())];
  if (item.kind === "line number") return [];
  if (item.kind === "stage" || item.kind === "speaker") return [h(`span.apart.${item.kind}`, { title: named(item.kind) }, item.text.trim())];
  if (item.kind === "note" && MARK.test(item.text)) return [h("sup.apart", { title: named("note") }, item.text.trim())];
  return note(item);
}

/** An element for words that have a line of their own. */
export function between(item) {
  const text = item.text.trim();
  if (item.kind === "speaker" || item.kind === "stage" || item.kind === "argument" || item.kind === "figure")
    return h(`p.apart.${item.kind}`, { lang: "it", title: named(item.kind) }, text);
  if (CLOSED.has(item.kind))
    return h("details.apart.closed", {}, h("summary", {}, named(item.kind)), h("p", { lang: "it" }, text));
  return h("p.apart.aside", {}, inside(item));
}

/** Sort what stands apart by place: for each block, what comes before it and what stands in it; the last entry is what is left. */
export function sorted(items, blocks) {
  const places = [...blocks.map(() => ({ before: [], within: [] })), { before: [], within: [] }];
  let i = 0;
  for (const item of items) {
    while (i < blocks.length && item.at > blocks[i].end) i += 1;
    const here = blocks[i];
    const ends = here && item.at === here.end; // said at the end of a block, before the next
    if (here && INSIDE.has(item.kind) && item.at >= here.start) places[i].within.push(item);
    else if (here && item.at > here.start && !ends) places[i].within.push(item);
    else places[ends ? i + 1 : i].before.push(item);
  }
  return places;
}
