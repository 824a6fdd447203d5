// Before the first paint: the theme and the language that were chosen last, else what the browser prefers.
"use strict";
(() => {
  const stored = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = stored("stilnovo.theme") || (dark ? "dark" : "light");
  const italian = navigator.languages.some((language) => language.toLowerCase().startsWith("it"));
  const other = navigator.languages.length > 0 && !italian;
  document.documentElement.lang = stored("stilnovo.language") || (other ? "en" : "it");
})();
