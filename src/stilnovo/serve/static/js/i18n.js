// The page's language: chosen once, remembered, applied to everything that carries data-t.
import { remember } from "./dom.js";
import { WORDS } from "./words.js";

export const language = () => document.documentElement.lang;

/** A phrase, with its {gaps} filled. */
export function t(key, gaps = {}) {
  const phrase = WORDS[language()][key] ?? WORDS.it[key] ?? key;
  return phrase.replace(/\{(\w+)\}/g, (_, name) => gaps[name] ?? "");
}

export const number = (value) => value.toLocaleString(language(), { useGrouping: "always" });

/** What went wrong, in the reader's words. */
export function faultText(error, gaps = {}) {
  const key = `fault_${error.code}`;
  return t(WORDS.it[key] ? key : "fault_unknown", { detail: error.message, ...gaps });
}

/** Something the reader must know of an answer; the service's own sentence where there is none of ours. */
export function noticeText(notice) {
  const key = `notice_${notice.code}`;
  return WORDS.it[key] ? t(key, { n: notice.count, text: notice.detail }) : notice.text;
}

export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-placeholder]")) element.placeholder = t(element.dataset.tPlaceholder);
  for (const element of root.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
    if (element.matches(".icon, .send, summary")) element.title = t(element.dataset.tLabel);
  }
}

export function switchLanguage() {
  document.documentElement.lang = language() === "it" ? "en" : "it";
  remember("language", language());
}
