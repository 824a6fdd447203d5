// One conversation: its turns, and the answer that is being written.
import { get, post, stream } from "./api.js";
import * as composer from "./composer.js";
import { $, h, icon } from "./dom.js";
import { faultText, noticeText, t } from "./i18n.js";
import * as reader from "./reader.js";
import { answer } from "./render.js";

let current = null; // {id, title, messages}
let running = null; // {abort, id}: the answer being written, and its conversation
let tell = () => {}; // called when titles or order have changed

export const conversation = () => current;
export const onChange = (listener) => { tell = listener; };
const say = (text) => { $("status").textContent = text; };

function tool(name, label, act) {
  return h("button.plain", { type: "button", onclick: act }, icon(name), h("span", {}, label));
}

function meta(message) {
  const { kind, model, seconds, citations, records, nearest } = message.details;
  const made = kind === "extractive" && citations?.length ? t(nearest ? "nearest_words" : "found_words") : kind === "records" && records?.length ? t("from_records") : kind === "written" && model ? t("by_model", { model }) : "";
  return [made, seconds ? t("seconds", { n: seconds.toLocaleString(document.documentElement.lang, { maximumFractionDigits: 1, minimumFractionDigits: 1 }) }) : ""].filter(Boolean).join(" · ");
}

async function copy(event, text) {
  const label = event.currentTarget.querySelector("span");
  try {
    await navigator.clipboard.writeText(text);
    label.textContent = t("copied");
    say(t("copied"));
    setTimeout(() => { label.textContent = t("copy"); }, 1500);
  } catch { /* the browser does not allow it; the text can be selected */ }
}

function notes(message) {
  const { notices = [], error, finish_reason: reason } = message.details;
  const found = notices.filter((one) => one.code !== "writer_failed").map((one) => h("p.aside-note", {}, noticeText(one)));
  if (reason === "length") found.push(h("p.aside-note", {}, t("cut")));
  if (message.status === "stopped") found.push(h("p.aside-note", {}, t("was_stopped")));
  if (message.status === "interrupted") found.push(h("p.aside-note.trouble", {}, t("was_interrupted")));
  if (error) {
    found.push(h("p.aside-note.trouble", { role: "alert" }, faultText(error)));
  }
  return found;
}

/** An answer's element; `last` answers can be regenerated. */
function answerElement(message, last) {
  const writing = message.status === "writing" && running?.id === current?.id;
  const citations = message.details.citations ?? [];
  const blocks = writing ? [h("p", {}, message.text)] : answer(message.text, citations, reader.open, message.details.kind === "extractive");
  const element = h(`article.turn.answer${writing ? ".writing" : ""}`, { "aria-busy": writing ? "true" : null }, h("h2.unseen", {}, t("answer")), h("div.prose", {}, blocks));
  if (writing) return element;
  element.append(...notes(message), h("div.tools", {},
    message.text ? tool("copy", t("copy"), (event) => copy(event, message.text)) : null,
    last ? tool("again", t("again"), regenerate) : null,
    h("span.meta", {}, meta(message))));
  return element;
}

const questionElement = (message) => h("article.turn.question", {}, h("h2.unseen", {}, t("you")), h("p", {}, message.text));

export function draw() {
  const place = $("thread");
  place.setAttribute("role", "log");
  if (!current) return;
  const last = current.messages.length - 1;
  place.replaceChildren(...current.messages.map((message, i) => (message.role === "user" ? questionElement(message) : answerElement(message, i === last))));
}

function toEnd(smooth = false) {
  const place = $("thread");
  place.scrollTo({ top: place.scrollHeight, behavior: smooth ? "smooth" : "auto" });
}

const nearEnd = () => $("thread").scrollHeight - $("thread").scrollTop - $("thread").clientHeight < 120;

export async function open(id) {
  if (current?.id === id) return;
  if (running && running.id !== id) stop();
  current = await get(`/api/conversations/${id}`);
  draw();
  toEnd();
}

export function close() {
  stop();
  current = null;
}

/** Break off the answer that is being written; what arrived is kept. */
export function stop() {
  if (!running) return false;
  running.abort.abort();
  return true;
}

/** Begin a conversation, unless one is open, and ask in it. */
export async function send(text) {
  if (running) return;
  composer.notice();
  try {
    if (!current) {
      current = { ...(await post("/api/conversations")), messages: [] };
      $("thread").replaceChildren();
    }
  } catch (error) {
    composer.notice(error);
    return;
  }
  composer.fill("");
  const began = await write(`/api/conversations/${current.id}/messages`, { text, ...composer.settings() });
  if (!began && !$("message").value) composer.fill(text); // nothing was stored: nothing typed is lost
}

export async function regenerate() {
  if (!current || running || !current.messages.length) return;
  composer.notice();
  await write(`/api/conversations/${current.id}/regenerate`, composer.settings());
}

/** The answer's message as its events change it; returns whether it began. */
async function write(path, body) {
  const own = current;
  const abort = new AbortController();
  running = { abort, id: own.id };
  composer.busy(true);
  say(t("writing"));
  let message = null;
  try {
    for await (const { event, data } of stream(path, body, abort.signal)) {
      if (event === "start") message = started(own, data);
      else if (event === "token") grow(own, message, data.text);
      else if (event === "notice") (message.details.notices ??= []).push(data);
      else if (event === "done") Object.assign(message, data);
      else if (event === "error") Object.assign(message, { status: "failed", details: { ...message.details, error: data } });
      else if (event === "unsaved") composer.notice({ code: "unsaved", message: faultText(data) });
    }
    if (message?.status === "writing") Object.assign(message, { status: "failed", details: { ...message.details, error: { code: "network", message: "" } } });
  } catch (error) {
    if (error.name === "AbortError") { if (message) message.status = "stopped"; }
    else if (message) Object.assign(message, { status: "failed", details: { ...message.details, error } });
    else composer.notice(error);
  } finally {
    running = null;
    composer.busy(false);
    finish(own, message);
  }
  return message !== null;
}

function started(own, data) {
  own.title = data.conversation.title;
  own.messages = own.messages.filter((one) => one.id !== data.question.id);
  while (own.messages.at(-1)?.role === "assistant" && data.answer.details.attempt > 0) own.messages.pop();
  const message = { ...data.answer };
  own.messages.push(data.question, message);
  if (current === own) {
    draw();
    toEnd(true);
  }
  tell(own);
  return message;
}

function grow(own, message, text) {
  message.text += text;
  if (current !== own) return;
  const stay = nearEnd();
  const paragraph = $("thread").querySelector(".writing .prose p");
  paragraph?.append(text);
  if (stay) toEnd();
}

function finish(own, message) {
  if (!message || current !== own) return;
  const stay = nearEnd();
  const old = $("thread").lastElementChild;
  const element = answerElement(message, true);
  old?.replaceWith(element);
  if (stay) toEnd(true);
  say(message.status === "complete" ? t("written") : element.querySelector(".aside-note")?.textContent ?? "");
  tell(own);
}
