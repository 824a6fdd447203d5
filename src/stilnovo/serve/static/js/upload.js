// A file from the disk: sent, shown as it was understood, and stored only when the reader agrees.
import { post, remove } from "./api.js";
import { named } from "./apparatus.js";
import * as composer from "./composer.js";
import { show } from "./dialogs.js";
import { $, h } from "./dom.js";
import { number, t } from "./i18n.js";

let most = 50;
let kinds = "";
let stored = () => {};
let dropped = (files) => take(files);
export const megabytes = () => most;
/** What the service takes: endings of file names, and how much. */
export const limits = (state) => {
  most = state.upload_megabytes;
  kinds = state.kinds.join(",");
};
export const onStored = (listener) => { stored = listener; };

/** Let the reader choose files for `done`. */
export function choose(done, multiple) {
  const input = h("input", { type: "file", multiple, accept: kinds, id: "file", class: "unseen", tabindex: -1, "aria-hidden": "true" });
  document.getElementById("file")?.remove();
  document.body.append(input);
  input.addEventListener("change", () => { if (input.files.length) done([...input.files]); input.remove(); });
  input.click();
}

/** Let the reader choose files to add. */
export const pick = () => choose(take, true);

/** What becomes of files that are dropped on the page: `done`, with `words` shown while they hover; without, they are added. */
export function onDrop(done = take, words = "drop_here") {
  dropped = done;
  $("drop").firstElementChild.dataset.t = words;
  $("drop").firstElementChild.textContent = t(words);
}

/** Files one after the other. */
export async function take(files) {
  for (const file of files) {
    composer.notice();
    try {
      await one(file);
    } catch (error) {
      composer.notice(error, { limit: most });
    }
  }
}

async function one(file) {
  if (file.size > most * 2 ** 20) throw { code: "too_large", message: file.name };
  $("status").textContent = t("uploading", { name: file.name });
  const form = new FormData();
  form.append("file", file, file.name);
  const found = await post("/api/uploads", form);
  $("status").textContent = t("preview_title");
  const names = await ask(found);
  if (!names) {
    await remove(`/api/uploads/${found.id}`);
    return;
  }
  const work = await post(`/api/uploads/${found.id}/confirm`, names);
  $("status").textContent = t("added", { title: work.title });
  stored(work);
}

function section(one) {
  const name = [one.label, one.title].filter(Boolean).join(" · ") || t("whole");
  return h("li", {}, h("span", { lang: "it" }, name), h("span", {}, one.verse ? t("verse") : number(one.characters)));
}

/** What was kept apart from the author's words, by kind, the most first. */
function apart(counts) {
  const kinds = Object.entries(counts ?? {}).sort(([, one], [, other]) => other - one);
  const words = kinds.reduce((sum, [, one]) => sum + one, 0);
  if (!words) return null;
  const list = kinds.map(([kind, one]) => `${named(kind).toLowerCase()} ${number(one)}`).join(", ");
  return h("p.set-apart", {}, t("preview_apart", { words: number(words), list }));
}

/** That the work takes another's place, and the choice to keep both. */
function replacing(work, both) {
  const facts = [work.author, work.year].filter(Boolean).join(", ");
  return h("div.same", {}, h("p", {}, t("replaces", { title: work.title, facts: facts ? ` (${facts})` : "" })), h("label.choice", {}, both, t("keep_both")));
}

/** The names the work is to have, or null. */
async function ask(found) {
  const field = (name, label, attributes) => h("input", { name, "aria-label": label, value: found[name] ?? "", maxlength: 300, ...attributes });
  const title = field("title", t("title"), { required: true, autofocus: true });
  const author = field("author", t("author"), {});
  const year = field("year", t("year"), { type: "number", min: -3000, max: 3000 });
  const facts = t("preview_facts", { name: found.name, characters: number(found.characters), words: number(found.words), passages: number(found.passages) });
  const both = h("input", { type: "checkbox", name: "keep_both" });
  const chosen = await show("preview", t("preview_title"), (close) => h("form.stack", { onsubmit: (event) => { event.preventDefault(); close("yes"); } },
      h("p.facts", {}, facts),
      apart(found.apparatus),
      (found.warnings ?? []).map((line) => h("p.same", {}, line)),
      found.replaces ? replacing(found.replaces, both) : null,
      found.there_already ? h("p.same", {}, t("there_already", { title: found.there_already })) : null,
      h("div.names", {}, h("label.field", {}, t("title"), title), h("label.field", {}, t("author"), author), h("label.field", {}, t("year"), year)),
      h("h3", {}, found.section_count === 1 ? t("one_section") : t("preview_sections", { n: number(found.section_count) })),
      h("ol.found", { tabindex: 0, "aria-label": t("preview_sections", { n: found.section_count }) }, found.sections.map(section)),
      h("h3", {}, t("preview_beginning")),
      h("p.beginning", { lang: "it" }, found.beginning.trim()),
      h("div.acts", {},
        h("button.button", { type: "button", onclick: () => close() }, t("discard")),
        h("button.button.main-act", { type: "submit" }, t("keep")))));
  if (chosen !== "yes") return null;
  return { title: title.value, author: author.value, year: year.value ? Number(year.value) : null, ...(found.replaces ? { keep_both: both.checked } : {}) };
}

/** Files may be dropped anywhere. */
export function acceptDrops() {
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => { if (carries(event)) { event.preventDefault(); $("drop").hidden = false; } });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
  addEventListener("drop", (event) => {
    $("drop").hidden = true;
    if (!carries(event)) return;
    event.preventDefault();
    dropped([...event.dataTransfer.files]);
  });
}
