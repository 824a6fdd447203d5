// Any text checked against the library: each of its quotations verified, inexact, of another work, or not found.
import { post } from "./api.js";
import * as composer from "./composer.js";
import { $, h, icon } from "./dom.js";
import { number, t } from "./i18n.js";
import * as reader from "./reader.js";
import { source } from "./render.js";
import * as upload from "./upload.js";

const STATUSES = ["verified", "inexact", "misattributed", "not_found"];
const LOOKS = { verified: ["check", "verified"], inexact: ["mend", "repaired"], misattributed: ["turn", "misattributed"], not_found: ["doubt", "unverified"] };
const CONTEXT = 70; // characters shown of the text on both sides

let result = null; // what the service said last, with the text it said it of
let typed = "";
let only = ""; // the one status that is shown, or all
let busy = false;

const badge = (status) => h(`span.badge.${LOOKS[status][1]}`, { title: t(`check_${status}_title`) }, icon(LOOKS[status][0]), t(`check_${status}`));

async function check(body, name) {
  if (busy) return;
  busy = true;
  composer.notice();
  draw();
  $("status").textContent = t("checking", { name: name || t("your_text") });
  try {
    result = { ...(await post("/api/quotes", body)), name };
    only = "";
  } catch (error) {
    composer.notice(error, { limit: upload.megabytes() });
  }
  busy = false;
  draw();
  if (result && $("notice").hidden) {
    $("status").textContent = summary();
    $("tally")?.focus();
  }
}

/** Check a file. */
export function take(file) {
  if (file.size > upload.megabytes() * 2 ** 20) {
    composer.notice({ code: "too_large", message: file.name }, { limit: upload.megabytes() });
    return;
  }
  const form = new FormData();
  form.append("file", file, file.name);
  check(form, file.name);
}

const found = () => result.quotations.length;
const named = (status, count) => t(count === 1 ? `check_${status}` : `checks_${status}`);
const summary = () => (found() ? `${found() === 1 ? t("one_quotation") : t("quotations", { n: number(found()) })}: ${STATUSES.filter((one) => result.counts[one]).map((one) => `${number(result.counts[one])} ${named(one, result.counts[one])}`).join(", ")}` : t("no_quotations"));

/** The words around a quotation in the text. */
function around(quotation) {
  const text = quotation.note ? result.notes?.[quotation.note - 1]?.text : result.text;
  if (typeof text !== "string") return [];
  const points = Array.from(text);
  const before = points.slice(Math.max(0, quotation.start - CONTEXT), quotation.start).join("");
  const after = points.slice(quotation.end, quotation.end + CONTEXT).join("");
  const own = points.slice(quotation.start, quotation.end).join("");
  const flat = (words) => words.replace(/\s+/g, " ");
  return [`${quotation.start > CONTEXT ? "… " : ""}${flat(before.replace(/^\S*\s/, quotation.start > CONTEXT ? "" : "$&"))}`, h("b", {}, flat(own)), `${flat(after.replace(/\s\S*$/, quotation.end + CONTEXT < points.length ? "" : "$&"))}${quotation.end + CONTEXT < points.length ? " …" : ""}`];
}

/** The source's words, with what the quotation has otherwise struck out before them. */
function difference(steps) {
  return steps.flatMap((step) => [
    step.op === "equal" ? step.source : null,
    step.op !== "equal" && step.quoted ? h("del", {}, h("span.unseen", {}, `${t("you_wrote")} `), step.quoted) : null,
    step.op === "replace" ? " " : null,
    step.op !== "equal" && step.source ? h("ins", {}, h("span.unseen", {}, `${t("source_has")} `), step.source) : null,
    " ",
  ]);
}

function card(quotation) {
  const { status, source: place } = quotation;
  const where = t(quotation.note ? "in_note" : "in_paragraph", { n: quotation.note || quotation.paragraph });
  const parts = [h("div.checked-head", {}, badge(status), h("span.where", {}, where)), h("blockquote", { lang: "it" }, around(quotation))];
  if (quotation.difference?.length) parts.push(h("p.difference", { lang: "it" }, h("span.label", {}, t("source_words")), " ", difference(quotation.difference)));
  else if (place && (status === "misattributed" || place.before || place.after)) parts.push(h("p.difference", { lang: "it" }, h("span.label", {}, t("source_words")), ` «${place.shown}»`));
  if (quotation.attribution && (status === "misattributed" || quotation.place_differs)) parts.push(h("p.said", {}, t("text_says", { what: quotation.attribution })));
  if (place?.citation) parts.push(h("p.from", {}, h("button.cite", { type: "button", "aria-label": t("open_citation", { what: place.citation }), onclick: () => reader.open(place) }, source(place))));
  return h(`li.checked.${LOOKS[status][1]}`, {}, parts);
}

function tally() {
  const choose = (status) => () => { only = only === status ? "" : status; draw(); $(`only-${status}`)?.focus(); };
  return h("ul.tally", { id: "tally", tabindex: -1, "aria-label": summary() }, STATUSES.map((status) => h("li", {}, h("button", { type: "button", id: `only-${status}`, class: LOOKS[status][1], disabled: !result.counts[status], "aria-pressed": String(only === status), onclick: choose(status) },
    h("strong", {}, number(result.counts[status] ?? 0)), h("span", {}, icon(LOOKS[status][0]), named(status, result.counts[status] ?? 0))))));
}

const report = () => JSON.stringify({ name: result.name, counts: result.counts, quotations: result.quotations }, null, 1);

function acts() {
  const copy = h("button.plain", { type: "button", onclick: async () => {
    try { await navigator.clipboard.writeText(report()); copy.querySelector("span").textContent = t("copied"); $("status").textContent = t("copied"); } catch { /* the browser does not allow it; the file can be saved */ }
  } }, icon("copy"), h("span", {}, t("copy_json")));
  const save = h("button.plain", { type: "button", id: "save-report", onclick: () => {
    const address = URL.createObjectURL(new Blob([report()], { type: "application/json" }));
    h("a", { href: address, download: `${(result.name || "stilnovo").replace(/\.\w+$/, "")}-${t("report_name")}.json` }).click();
    URL.revokeObjectURL(address);
  } }, icon("save"), h("span", {}, t("save_json")));
  return h("div.tools", {}, copy, save);
}

function shown() {
  if (busy) return [h("p.nothing", {}, t("checking", { name: t("your_text") }))];
  if (!result) return [];
  const warnings = (result.warnings ?? []).map((line) => h("p.same", {}, line));
  if (!found()) return [...warnings, h("p.nothing", {}, t("no_quotations"))];
  const rows = result.quotations.filter((one) => !only || one.status === only);
  return [h("h3.result-title", {}, result.name || t("your_text")), ...warnings, tally(), acts(), h("ol.checks", {}, rows.map(card))];
}

export function draw() {
  const place = $("quotes");
  if (place.hidden) return;
  const box = h("textarea", { id: "essay", rows: 9, maxlength: 1000000, placeholder: t("essay_placeholder"), "aria-describedby": "essay-hint", spellcheck: "false" });
  box.value = typed;
  const go = h("button.button.main-act", { type: "submit", disabled: busy || !typed.trim() }, t("check"));
  box.addEventListener("input", () => { typed = box.value; go.disabled = busy || !typed.trim(); });
  box.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); go.form.requestSubmit(); } });
  const form = h("form.essay", { onsubmit: (event) => { event.preventDefault(); if (typed.trim()) check({ text: typed }, ""); } },
    h("label.unseen", { for: "essay" }, t("essay_label")), box,
    h("div.essay-acts", {}, h("p", { id: "essay-hint" }, t("essay_hint")), h("button.button", { type: "button", id: "essay-file", onclick: () => upload.choose(([file]) => take(file), false) }, t("choose_file")), go));
  place.replaceChildren(
    h("header.quotes-head", {}, h("h2", {}, t("quotes_heading")), h("p", {}, t("quotes_text"))),
    form, h("section.results", { "aria-label": t("quotes_results"), "aria-busy": busy ? "true" : null }, shown()));
}
