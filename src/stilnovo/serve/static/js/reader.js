// The passage in its chapter: the whole section, with the quotation marked to the letter.
import { get } from "./api.js";
import { between, inside, restart, sorted } from "./apparatus.js";
import { $, h, icon } from "./dom.js";
import { faultText, t } from "./i18n.js";

let before = null; // where the focus was
let shown = null; // what is open, to draw it anew in another language

/** Characters `from` to `to` of a block, those from `first` to `last` of the work marked; offsets count code points, as the service does. */
function marked(points, start, from, to, first, last) {
  const text = (a, b) => points.slice(a - start, b - start).join("");
  const begin = Math.max(from, first);
  const end = Math.min(to, last);
  if (end <= begin) return [text(from, to)];
  return [text(from, begin), h("mark", {}, text(begin, end)), text(end, to)];
}

/** A block's text with what stands apart in it. */
function line(block, within, first, last) {
  const points = Array.from(block.text);
  let at = block.start;
  const opened = []; // the notes, which open below the block
  const parts = within.flatMap((item) => {
    const before = marked(points, block.start, at, item.at, first, last);
    const [mark, note] = inside(item);
    if (note) opened.push(note);
    at = item.at;
    return [...before, mark];
  });
  return [...parts, ...marked(points, block.start, at, block.end, first, last), ...opened];
}

/** Paragraphs, and lists of verses, with what stands apart before and in each. */
function text(found, first, last) {
  const { blocks } = found;
  const places = sorted(found.apparatus ?? [], blocks);
  const verses = blocks.filter((block) => "number" in block).length;
  const step = verses > 40 && verses % 3 === 1 ? 3 : 5; // a canto in tercets is numbered by three
  const parts = [];
  let list = null;
  restart();
  blocks.forEach((block, i) => {
    const before = places[i].before.flatMap(between);
    if (before.length) list = null;
    parts.push(...before);
    const words = line(block, places[i].within, first, last);
    if (!("number" in block)) {
      list = null;
      parts.push(h("p", { lang: "it" }, words));
      return;
    }
    if (!list) parts.push(list = h("ol.verses", { lang: "it" }));
    list.append(h(block.stanza ? "li.stanza" : "li", { "data-number": block.number && block.number % step === 0 ? block.number : null }, words));
  });
  return [...parts, ...places.at(-1).before.flatMap(between)];
}

const named = (section) => [section.label, section.title].filter(Boolean).join(" · ") || t("whole");

function turn(section, work, kind) {
  if (!section) return h("span");
  const name = h("span", {}, named(section));
  const label = `${t(kind)}: ${named(section)}`;
  return h("button.plain", { type: "button", "aria-label": label, onclick: () => open({ sha256: work.sha256, start: section.start }) },
    kind === "previous" ? [icon("left"), name] : [name, icon("right")]);
}

function draw(found, place) {
  const { work, section } = found;
  const heading = h("h2", { id: "reader-title", tabindex: -1, lang: "it" }, work.title);
  const marks = place.end ?? place.start;
  const facts = [work.author, work.year].filter(Boolean).join(", ");
  const body = h("div.reader-body", { tabindex: 0, "aria-label": named(section) }, h("h3", { lang: "it" }, named(section)), text(found, place.start, marks));
  $("reader").replaceChildren(
    h("header.reader-head", {}, heading, closer(), h("p", {}, facts)), body,
    h("footer.reader-foot", {}, turn(found.previous, work, "previous"), turn(found.next, work, "next")));
  const first = body.querySelector("mark");
  if (first) body.scrollTop += first.getBoundingClientRect().top - body.getBoundingClientRect().top - body.clientHeight * 0.32;
  heading.focus({ preventScroll: true });
}

function closer() {
  return h("button.icon", { type: "button", "aria-label": t("close_reader"), title: t("close_reader"), onclick: close }, icon("close"));
}

/** Open the place `{sha256, start, end}`; without an end, the section is opened with nothing marked. */
export async function open(place) {
  const panel = $("reader");
  if (panel.hidden) before = document.activeElement;
  panel.hidden = false;
  document.body.classList.add("reading");
  shown = place;
  if (!panel.firstChild) panel.replaceChildren(h("p.loading", {}, t("reading")));
  try {
    const found = await get(`/api/works/${place.sha256}/section?at=${place.start}`);
    if (shown === place) draw(found, place);
  } catch (error) {
    panel.replaceChildren(h("header.reader-head", {}, h("h2", { id: "reader-title" }, place.work ?? ""), closer()), h("p.gone", { role: "alert" }, faultText(error)));
  }
}

export function close() {
  const panel = $("reader");
  if (panel.hidden) return false;
  panel.hidden = true;
  panel.replaceChildren();
  document.body.classList.remove("reading");
  shown = null;
  if (before?.isConnected) before.focus();
  return true;
}

export const redraw = () => { if (shown) open(shown); };
