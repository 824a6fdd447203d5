// The page put together: the address decides what is shown, so that a reload finds it again.
import { get, onTokenWanted, patch, post, remove } from "./api.js";
import * as composer from "./composer.js";
import * as dialogs from "./dialogs.js";
import { $, h, remember } from "./dom.js";
import { language, switchLanguage, t, translate } from "./i18n.js";
import * as quotes from "./quotes.js";
import * as reader from "./reader.js";
import * as shelf from "./shelf.js";
import * as thread from "./thread.js";
import * as upload from "./upload.js";

const OPENINGS = {
  "Il faro di Pietranera": ["Chi ha insegnato a leggere a Tecla?", "Chi è Anselmo Corvi?"],
  "La notte delle lucciole": ["Riassumi il canto I della Notte delle lucciole"],
  "I promessi sposi": ["Chi è don Abbondio?", "Riassumi il capitolo VIII dei Promessi sposi"],
  Commedia: ["Nel mezzo del cammin di nostra vita"],
  "La coscienza di Zeno": ["Chi è Zeno?"],
};
let state = { modes: ["library"], writer: "", works: 0 };
let conversations = [];

function day(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const at = new Date(time).getTime();
  return at >= midnight ? "today" : at >= midnight - 864e5 ? "yesterday" : "earlier";
}

function drawList() {
  const open = location.hash.match(/^#\/c\/(\w+)/)?.[1];
  const rows = [];
  let before = "";
  for (const one of conversations) {
    const when = day(one.updated);
    if (when !== before) rows.push(h("li.day", {}, t(when)));
    before = when;
    const title = one.title || t("untitled");
    rows.push(h("li", {}, h("a", { href: `#/c/${one.id}`, title, "aria-current": one.id === open ? "page" : null }, title)));
  }
  $("list").replaceChildren(...(rows.length ? rows : [h("li.none", {}, t("no_conversations"))]));
}

async function refresh() {
  try {
    conversations = (await get("/api/conversations")).conversations;
    drawList();
  } catch (error) { composer.notice(error); }
}

async function recount() {
  state = await get("/api/state");
  $("work-count").textContent = state.works || "";
  upload.limits(state);
}

async function welcome() {
  const { works } = state.works ? await get("/api/works") : { works: [] };
  if (thread.conversation() || location.hash.length > 2) return;
  const questions = works.flatMap((work) => OPENINGS[work.title] ?? []).slice(0, 4);
  const empty = !works.length && !state.writer;
  $("thread").removeAttribute("role");
  $("thread").replaceChildren(h("div.welcome", {},
    h("h2", {}, t(empty ? "welcome_empty" : "welcome")), h("p", {}, t(empty ? "welcome_empty_text" : "welcome_text")),
    questions.length ? h("div.openings", { lang: "it" }, questions.map((text) => h("button", { type: "button", onclick: () => thread.send(text) }, text))) : null,
    empty ? h("div.starts", {}, h("button.button.main-act", { type: "button", onclick: upload.pick }, t("add_text")), shelf.sampleButton(welcome)) : null));
}

function titled(text, menu = false) {
  $("title").textContent = text || "stilnovo";
  $("title").classList.toggle("blank", !text);
  document.title = text ? `${text} · stilnovo` : "stilnovo";
  $("menu").hidden = !menu;
  $("menu").open = false;
}

/** Show what the address says. */
async function route() {
  drawer(false);
  const [, what, id, span] = location.hash.split("/");
  const library = what === "biblioteca";
  const checking = what === "citazioni";
  const away = library || checking;
  $("shelf").hidden = !library;
  $("quotes").hidden = !checking;
  $("thread").hidden = away;
  $("composer").classList.toggle("away", away);
  for (const part of $("composer").children) if (part.id !== "notice") part.hidden = away || (part.id === "controls" && $("tune").getAttribute("aria-expanded") !== "true");
  $("to-shelf").toggleAttribute("aria-current", library);
  $("to-quotes").toggleAttribute("aria-current", checking);
  if (checking) upload.onDrop(([file]) => quotes.take(file), "drop_to_check");
  else upload.onDrop();
  composer.notice();
  try {
    if (checking) {
      titled(t("quotes"));
      shelf.close();
      quotes.draw();
    } else if (library) {
      titled(t("library"));
      await shelf.open(id);
      const [, start, end] = span?.match(/^(\d+)(?:-(\d+))?$/) ?? [];
      if (start) await reader.open({ sha256: id, start: Number(start), end: end && Number(end) });
    } else if (what === "c") {
      shelf.close();
      await thread.open(id);
      titled(thread.conversation().title || t("untitled"), true);
      links(id);
    } else {
      shelf.close();
      thread.close();
      titled("");
      await welcome();
    }
  } catch (error) {
    composer.notice(error);
    if (what === "c") history.replaceState(null, "", "#/");
  }
  drawList();
}

function links(id) {
  for (const format of ["markdown", "html", "docx", "anki", "csv", "json"]) {
    $(`export-${format}`).href = `/api/conversations/${id}/export?format=${format}&language=${language()}`;
  }
}

async function rename() {
  const own = thread.conversation();
  $("menu").open = false;
  const title = await dialogs.prompt(t("rename_title"), t("title"), own.title);
  if (!title) return;
  try {
    own.title = (await patch(`/api/conversations/${own.id}`, { title })).title;
    titled(own.title, true);
    await refresh();
  } catch (error) { composer.notice(error); }
}

async function erase() {
  const own = thread.conversation();
  $("menu").open = false;
  if (!(await dialogs.confirm(t("delete_title"), t("delete_text", { title: own.title || t("untitled") }), t("delete")))) return;
  try {
    thread.stop();
    await remove(`/api/conversations/${own.id}`);
    location.hash = "#/";
    await refresh();
  } catch (error) { composer.notice(error); }
}

function drawer(open) {
  $("side").classList.toggle("open", open);
  $("veil").hidden = !open;
  $("open-side").setAttribute("aria-expanded", String(open));
  if (open) $("close-side").focus();
}

function words() {
  translate();
  const dark = document.documentElement.dataset.theme === "dark";
  $("theme").setAttribute("aria-label", t(dark ? "theme_light" : "theme_dark"));
  $("theme").title = t(dark ? "theme_light" : "theme_dark");
  $("language").textContent = t("language");
  $("language").setAttribute("aria-label", t("language_label"));
  composer.draw(state);
}

function redraw() {
  words();
  drawList();
  thread.draw();
  shelf.draw();
  quotes.draw();
  reader.redraw();
  const own = thread.conversation();
  if (own) links(own.id);
  if (location.hash.startsWith("#/biblioteca")) titled(t("library"));
  else if (location.hash.startsWith("#/citazioni")) titled(t("quotes"));
  else if (!own) welcome();
}

function keys(event) {
  const typing = event.target.matches("input, textarea, select");
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if ($("menu").open) $("menu").open = false;
    else if ($("side").classList.contains("open")) { drawer(false); $("open-side").focus(); }
    else if (!thread.stop()) reader.close();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey) {
    const act = { KeyN: () => { location.hash = "#/"; $("message").focus(); }, KeyB: () => { location.hash = "#/biblioteca"; }, KeyC: () => { location.hash = "#/citazioni"; }, KeyR: thread.regenerate }[event.code];
    if (act) { event.preventDefault(); act(); }
  } else if (!typing && !event.ctrlKey && !event.metaKey) {
    if (event.key === "/") { event.preventDefault(); [$("message"), $("seek"), $("essay")].find((field) => field?.offsetParent)?.focus(); }
    if (event.key === "?") { event.preventDefault(); dialogs.shortcuts(); }
  }
}

function listen() {
  composer.begin(thread.send, thread.stop);
  upload.acceptDrops();
  addEventListener("hashchange", route);
  addEventListener("keydown", keys);
  addEventListener("click", (event) => { if (!$("menu").contains(event.target)) $("menu").open = false; });
  $("rename").addEventListener("click", rename);
  $("delete").addEventListener("click", erase);
  $("help").addEventListener("click", dialogs.shortcuts);
  $("open-side").addEventListener("click", () => drawer(true));
  $("close-side").addEventListener("click", () => { drawer(false); $("open-side").focus(); });
  $("veil").addEventListener("click", () => drawer(false));
  $("list").addEventListener("click", () => drawer(false));
  $("language").addEventListener("click", () => { switchLanguage(); redraw(); });
  $("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    remember("theme", theme);
    words();
  });
  $("new").addEventListener("click", () => { if (location.hash === "#/") route(); $("message").focus(); });
  thread.onChange((own) => {
    if (thread.conversation() !== own) return;
    if (location.hash !== `#/c/${own.id}`) history.pushState(null, "", `#/c/${own.id}`);
    titled(own.title || t("untitled"), true);
    links(own.id);
    refresh();
  });
  shelf.onChange(recount);
  upload.onStored(async (work) => {
    await recount();
    if (location.hash === `#/biblioteca/${work.sha256}`) shelf.draw();
    else location.hash = `#/biblioteca/${work.sha256}`;
  });
  onTokenWanted(onlyOnce(() => dialogs.token(post)));
}

/** Several requests that find the door closed ask the reader once. */
function onlyOnce(ask) {
  let asking = null;
  return () => (asking ??= ask().finally(() => { asking = null; }));
}

async function start() {
  words();
  listen();
  try { await recount(); } catch (error) { composer.notice(error); }
  words();
  await refresh();
  await route();
  document.documentElement.dataset.ready = "";
  if (matchMedia("(hover: hover)").matches && !/^#\/(biblioteca|citazioni)/.test(location.hash)) $("message").focus();
}

start();
