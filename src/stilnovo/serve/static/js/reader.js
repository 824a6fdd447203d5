// The passage in its chapter: the whole section, with the quotation marked to the letter.
import { get } from "./api.js";
import { $, h, icon } from "./dom.js";
import { faultText, t } from "./i18n.js";

let before = null; // where the focus was
let shown = null; // what is open, to draw it anew in another language

/** A block's text with the characters from `from` to `to` of the work marked; offsets count code points, as the service does. */
function marked(block, from, to) {
  if (to <= block.start || from >= block.end) return [block.text];
  const points = Array.from(block.text);
  const start = Math.max(0, from - block.start);
  const end = Math.min(points.length, to - block.start);
  const text = (a, b) => points.slice(a, b).join("");
  return [text(0, start), h("mark", {}, text(start, end)), text(end)];
}

function verseList(blocks, from, to) {
  const tercets = blocks.length > 40 && blocks.length % 3 === 1;
  const step = tercets ? 3 : 5;
  return h("ol.verses", { lang: "it" }, blocks.map((block) => h(block.stanza ? "li.stanza" : "li",
    { "data-number": block.number % step === 0 ? block.number : null }, marked(block, from, to))));
}

const named = (section) => [section.label, section.title].filter(Boolean).join(" · ") || t("whole");

function turn(section, work, kind) {
  if (!section) return h("span");
  const text = h("span", {}, named(section));
  const label = `${t(kind)}: ${named(section)}`;
  return h("button.plain", { type: "button", "aria-label": label, onclick: () => open({ sha256: work.sha256, start: section.start }) },
    kind === "previous" ? [icon("left"), text] : [text, icon("right")]);
}

function draw(found, place) {
  const { work, section, blocks } = found;
  const heading = h("h2", { id: "reader-title", tabindex: -1, lang: "it" }, work.title);
  const marks = place.end ?? place.start;
  const text = section.verse ? [verseList(blocks, place.start, marks)] : blocks.map((block) => h("p", { lang: "it" }, marked(block, place.start, marks)));
  const facts = [work.author, work.year].filter(Boolean).join(", ");
  const body = h("div.reader-body", { tabindex: 0, "aria-label": named(section) }, h("h3", { lang: "it" }, named(section)), text);
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
