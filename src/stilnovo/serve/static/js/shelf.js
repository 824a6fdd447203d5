// The library: its works, their contents, a search over all of it, and the way in for new texts.
import { get, post, remove } from "./api.js";
import { named as kindName } from "./apparatus.js";
import { confirm } from "./dialogs.js";
import { $, h, icon } from "./dom.js";
import { faultText, number, t } from "./i18n.js";
import * as reader from "./reader.js";
import * as study from "./study.js";
import { pick } from "./upload.js";

let place = null; // the sha256 of the open work, or "" for all
let query = "";
let kind = "passages"; // what a search shows: passages, or a concordance
let turn = 0;

const count = (n) => (n === 1 ? t("one_section") : t("section_count", { n: number(n) }));
const fail = (error) => $("shelf").replaceChildren(h("p.nothing", { role: "alert" }, faultText(error)));

function top() {
  const input = h("input", { type: "search", id: "seek", value: query, placeholder: t("search"), maxlength: 1000, autocomplete: "off" });
  const form = h("form.search", { role: "search", onsubmit: (event) => { event.preventDefault(); find(input.value); } },
    icon("seek"), h("label.unseen", { for: "seek" }, t("search_label")), input);
  input.addEventListener("input", () => { if (!input.value) find(""); });
  const chosen = study.kindChoice(kind, (now) => { kind = now; query = input.value.trim(); draw(); });
  return h("div.shelf-top", {}, form, chosen, h("button.button", { type: "button", id: "add-text", onclick: pick }, t("add_text")));
}

function find(text) {
  query = text.trim();
  draw();
}

function hit(result) {
  return h("article.hit", {}, h(result.verse ? "p.verse" : "p", { lang: "it" }, result.text),
    h("button.cite", { type: "button", onclick: () => reader.open(result) }, result.citation), study.parallels(result.text, result.citation));
}

/** What was found in notes, speakers and the like: never among the author's words. */
function apartHits(results) {
  return h("section.author", {}, h("h2", {}, t("apart_hits")), results.map((one) => h("article.hit", {},
    h("p", { lang: "it" }, h("span.kind", {}, `${kindName(one.kind)}: `), one.text),
    h("button.cite", { type: "button", onclick: () => reader.open({ sha256: one.sha256, start: one.at }) }, one.citation))));
}

function work(one) {
  return h("li.work", {}, h("a", { href: `#/biblioteca/${one.sha256}`, lang: "it" }, one.title),
    h("span.facts", {}, [one.year, count(one.sections)].filter(Boolean).join(" · ")));
}

async function all() {
  if (query && kind === "concordance") return study.concordance(query, draw);
  if (query) {
    const words = encodeURIComponent(query);
    const [{ results }, { results: apart }] = await Promise.all([get(`/api/search?q=${words}`), get(`/api/search?q=${words}&apparatus=true`)]);
    $("status").textContent = results.length ? t("results", { n: results.length }) : t("nothing");
    return [...(results.length ? results.map(hit) : [h("p.nothing", {}, t("nothing"))]), ...(apart.length ? [apartHits(apart)] : [])];
  }
  const { works } = await get("/api/works");
  if (!works.length) return [h("p.nothing", {}, t("welcome_empty")), h("div", {}, sampleButton())];
  const authors = Map.groupBy ? Map.groupBy(works, (one) => one.author) : group(works);
  return [...authors].sort(([one], [other]) => !one - !other).map(([author, theirs]) => h("section.author", {}, h("h2", {}, author || t("unknown_author")), h("ul", {}, theirs.map(work))));
}

function group(works) {
  const found = new Map();
  for (const one of works) found.set(one.author, [...(found.get(one.author) ?? []), one]);
  return found;
}

export function sampleButton(done = () => draw()) {
  return h("button.button", { type: "button", onclick: async () => {
    try { await post("/api/works/sample"); changed(); done(); } catch (error) { fail(error); }
  } }, t("add_sample"));
}

async function contents(sha256) {
  const one = await get(`/api/works/${sha256}`);
  const facts = t("work_facts", { characters: number(one.characters), sections: number(one.sections), passages: number(one.passages) });
  const rows = one.contents.map((section) => h("li", {}, h("button", { type: "button", onclick: () => reader.open({ sha256, start: section.start }) },
    h("span", { lang: "it" }, section.label || (section.title ? "" : t("whole")), section.title ? [section.label ? " · " : "", h("em", {}, section.title)] : null),
    h("span.facts", {}, t("characters", { n: number(section.characters) })))));
  const drop = h("button.plain.grave", { type: "button", onclick: () => removeWork(one) }, t("remove"));
  return [
    h("div", {}, h("a.plain.back", { href: "#/biblioteca" }, icon("left"), t("all_works"))),
    h("header.work-head", {}, h("h2", { lang: "it", tabindex: -1 }, one.title), h("p", {}, [one.author, one.year].filter(Boolean).join(", ")), h("p", {}, `${facts} · ${t("from_file", { name: one.source })}`)),
    await study.reference(sha256), h("ol.contents", {}, rows), h("div.removing", {}, drop)];
}

async function removeWork(one) {
  if (!(await confirm(t("remove_title"), t("remove_text", { title: one.title }), t("remove")))) return;
  try {
    await remove(`/api/works/${one.sha256}`);
    reader.close();
    changed();
    location.hash = "#/biblioteca";
  } catch (error) { fail(error); }
}

let changed = () => {};
/** Who must know that works came or went. */
export const onChange = (listener) => { changed = listener; };

export async function draw() {
  if (place === null) return;
  const mine = ++turn;
  try {
    const parts = place ? await contents(place) : await all();
    if (mine !== turn) return;
    const focused = document.activeElement?.id === "seek";
    $("shelf").replaceChildren(...(place ? parts : [top(), ...parts]));
    if (focused) $("seek").focus();
  } catch (error) { if (mine === turn) fail(error); }
}

export async function open(sha256 = "") {
  place = sha256;
  await draw();
}

export const close = () => { place = null; };
