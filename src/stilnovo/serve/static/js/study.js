// Study: a word in the middle of its lines, the passages that answer a passage, and how a work is cited.
import { get, post } from "./api.js";
import { $, h } from "./dom.js";
import { faultText, number, t } from "./i18n.js";
import * as reader from "./reader.js";

const LINES = 200;
let order = "text";

function choice(name, chosen, names, act) {
  return h("label.study-choice", {}, h("span", {}, t(name)), h("select", { id: name, onchange: (event) => act(event.target.value) },
    names.map((one) => h("option", { value: one, selected: one === chosen ? "" : null }, t(`${name}_${one}`)))));
}

export const kindChoice = (chosen, act) => choice("seek_kind", chosen, ["passages", "concordance"], act);

function row(line) {
  return h("tr", {}, h("td.left", { lang: "it" }, line.before),
    h("td", { lang: "it" }, h("button.cite", { type: "button", onclick: () => reader.open(line) }, line.word)),
    h("td.right", { lang: "it" }, line.after), h("td.place", {}, line.citation));
}

/** The lines of a word, sorted as chosen; `redraw` is called when that changes. */
export async function concordance(query, redraw) {
  const address = `/api/concordance?q=${encodeURIComponent(query)}&sort=${order}`;
  const { places, lines } = await get(`${address}&limit=${LINES}`);
  $("status").textContent = places ? t("places", { n: number(places) }) : t("nothing");
  if (!places) return [h("p.nothing", {}, t("nothing"))];
  const head = h("div.study-head", {}, h("span", {}, t("places", { n: number(places) })),
    choice("order", order, ["text", "left", "right", "word"], (now) => { order = now; redraw(); }),
    h("a.plain", { href: `${address}&format=csv`, download: "" }, t("save_csv")));
  return [head, h("div.kwic", { tabindex: 0, role: "region", "aria-label": t("seek_kind_concordance") }, h("table", {}, h("tbody", {}, lines.map(row)))),
    places > lines.length ? h("p.facts", {}, t("first_lines", { n: number(lines.length) })) : null].filter(Boolean);
}

function parallel(one) {
  return h("li", {}, h("p", { lang: "it" }, one.kind === "words" ? `«${one.shared}»` : one.text),
    h("button.cite", { type: "button", onclick: () => reader.open(one) }, one.citation),
    h("span.facts", {}, t(`parallel_${one.kind}`)));
}

/** A button that shows the passages parallel to a passage below it. */
export function parallels(text, citation) {
  const shown = h("ul.parallels", { hidden: "" });
  const button = h("button.plain", { type: "button", "aria-expanded": "false", onclick: async () => {
    if (!shown.hidden) { shown.hidden = true; button.setAttribute("aria-expanded", "false"); return; }
    try {
      const { parallels: found } = await post("/api/parallels", { text: text.slice(0, 5000), limit: 6 });
      const others = found.filter((one) => one.text !== text);
      shown.replaceChildren(...(others.length ? others.map(parallel) : [h("li.facts", {}, t("no_parallels"))]));
    } catch (error) { shown.replaceChildren(h("li", { role: "alert" }, faultText(error))); }
    shown.hidden = false;
    button.setAttribute("aria-expanded", "true");
  } }, h("span", {}, t("parallels")), h("span.unseen", {}, ` ${citation}`));
  return [button, shown];
}

/** How a work is cited: its entry, and BibTeX to copy. */
export async function reference(sha256) {
  const { entry, bibtex } = await get(`/api/works/${sha256}/citation`);
  const button = h("button.plain", { type: "button", onclick: async () => {
    try { await navigator.clipboard.writeText(bibtex); $("status").textContent = t("copied"); } catch { /* the text can be selected */ }
  } }, t("copy_bibtex"));
  return h("details.reference", {}, h("summary", {}, t("cite_work")), h("p", { lang: "it" }, entry), h("pre", {}, bibtex), button);
}
