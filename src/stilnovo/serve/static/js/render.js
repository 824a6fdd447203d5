// An answer's text as elements: paragraphs, lists, a little emphasis, and its quotations, each leading to its passage.
import { h, icon } from "./dom.js";
import { t } from "./i18n.js";

const LONG = 70; // a quotation of this many characters stands by itself

/** The text cut at its quotations: strings and citations, in order. Offsets count code points, as the service does. */
function cut(text, citations) {
  const points = Array.from(text);
  const slice = (from, to) => points.slice(from, to).join("");
  const parts = [];
  let at = 0;
  for (const citation of [...citations].sort((a, b) => a.answer_start - b.answer_start)) {
    const { answer_start: start, answer_end: end } = citation;
    if (!(at <= start && start < end && end <= points.length)) continue;
    parts.push(slice(at, start), { ...citation, midway: slice(start + 1, start + 3) === "… " });
    at = end;
  }
  return [...parts, slice(at)];
}

const EMPHASIS = /(\*\*[^*\n]+\*\*|\*[^*\s][^*\n]*\*|`[^`\n]+`)/;

function words(text) {
  return text.split(EMPHASIS).map((piece) => {
    if (piece.length > 4 && piece.startsWith("**") && piece.endsWith("**")) return h("strong", {}, piece.slice(2, -2));
    if (piece.length > 2 && piece.startsWith("*") && piece.endsWith("*")) return h("em", {}, piece.slice(1, -1));
    if (piece.length > 2 && piece.startsWith("`") && piece.endsWith("`")) return h("code", {}, piece.slice(1, -1));
    return piece;
  });
}

/** Where a quotation comes from, the work's title in italics. */
export function source(citation) {
  const [before, ...after] = citation.citation.split(citation.work);
  return citation.work && after.length ? [before, h("em", {}, citation.work), after.join(citation.work)] : [citation.citation];
}

export function badge(status) {
  const name = { verified: "check", repaired: "mend", unverified: "doubt" }[status];
  return h(`span.badge.${status}`, { title: t(`${status}_title`) }, icon(name), t(status));
}

function figure(citation, open) {
  const lines = citation.verses ? citation.shown.split(" / ") : [citation.shown];
  const quoted = (line, i) => `${i === 0 ? `«${citation.midway ? "… " : ""}` : ""}${line}${i === lines.length - 1 ? "»" : ""}`;
  const inside = lines.length > 1 ? lines.map((line, i) => h("span.line", {}, quoted(line, i))) : quoted(lines[0], 0);
  const label = t("open_citation", { what: citation.citation });
  return h(`figure.quotation.${citation.status}`, {},
    h("blockquote", { lang: "it" }, inside),
    h("figcaption", {},
      citation.citation ? h("button.cite", { type: "button", "aria-label": label, onclick: () => open(citation) }, source(citation)) : null,
      badge(citation.status)));
}

function inline(citation, open) {
  const text = `«${citation.midway ? "… " : ""}${citation.shown}»`;
  const attributes = { lang: "it", title: `${citation.citation || t("unverified_title")} · ${t(citation.status)}` };
  if (citation.status === "unverified") return [h("span.inline-quote.unverified", attributes, text), " ", badge("unverified")];
  const label = `${text} ${t(citation.status)}. ${t("open_citation", { what: citation.citation })}`;
  return [h(`button.inline-quote.${citation.status}`, { ...attributes, type: "button", "aria-label": label, onclick: () => open(citation) }, text)];
}

/** The blocks of an answer. `open` is called with the citation that was chosen; `found` answers are quotations alone. */
export function answer(text, citations, open, found) {
  const blocks = [];
  let paragraph = [];
  const flush = () => {
    const meant = paragraph.some((part) => typeof part !== "string" || /[\p{L}\p{N}]/u.test(part));
    if (meant) blocks.push(h("p", {}, paragraph));
    paragraph = [];
  };
  const addText = (piece) => {
    piece.split(/\n{2,}/).forEach((block, i) => {
      if (i > 0) flush();
      const lines = block.split("\n");
      const listed = lines.filter((line) => line.trim());
      if (listed.length && listed.every((line) => /^\s*([-•]|\d+[.)])\s+/.test(line)) && !paragraph.length) {
        const kind = /^\s*\d/.test(listed[0]) ? "ol" : "ul";
        blocks.push(h(kind, {}, listed.map((line) => h("li", {}, words(line.replace(/^\s*([-•]|\d+[.)])\s+/, ""))))));
        return;
      }
      lines.forEach((line, j) => {
        if (j > 0 && paragraph.length) paragraph.push(h("br"));
        if (line) paragraph.push(...words(line));
      });
    });
  };
  for (const part of cut(text, citations)) {
    // The full stop after a quotation that stands by itself would open a line of its own.
    if (typeof part === "string") addText(blocks.at(-1)?.matches("figure") && !paragraph.length ? part.replace(/^[.,;:]\s*/, "") : part);
    else if (found || part.verses || part.shown.length >= LONG) {
      flush();
      blocks.push(figure(part, open));
    } else paragraph.push(...inline(part, open));
  }
  flush();
  return blocks;
}
