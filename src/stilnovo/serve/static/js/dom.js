// Elements from data. Text only ever becomes text nodes: nothing here, or anywhere on the page, parses markup.

/** An element: `h("button.plain", {type: "button", onclick}, "text", child)`. Listeners begin with "on"; null is left out. */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  copy: "M7 7V4.5h8.5V13H13M4.5 7H13v8.5H4.5z",
  again: "M15.5 10a5.5 5.5 0 1 1-1.7-4M14.5 3v3.4h-3.4",
  check: "m4.5 10.5 3.7 3.7 7.3-8.4",
  mend: "M4.5 8a6 6 0 0 1 10.6-1.6M15.5 12a6 6 0 0 1-10.6 1.6M15.4 3v3.6h-3.6M4.6 17v-3.6h3.6",
  doubt: "M10 5v6.5M10 14.8v.2",
  close: "m5 5 10 10M15 5 5 15",
  left: "M12 4.5 6.5 10l5.5 5.5",
  right: "M8 4.5 13.5 10 8 15.5",
  turn: "M4 7h10.5M11.5 4l3 3-3 3M16 13H5.5M8.5 10l-3 3 3 3",
  save: "M10 3.5v9M6.2 8.9l3.8 3.8 3.8-3.8M4 16.5h12",
  seek: "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11M13 13l4 4",
};

/** A small drawing that screen readers pass over. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

export const $ = (id) => document.getElementById(id);

/** What was kept in this browser, or a default; a browser that keeps nothing is no trouble. */
export function recall(name, otherwise) {
  try {
    const found = localStorage.getItem(`stilnovo.${name}`);
    return found === null ? otherwise : found;
  } catch { return otherwise; }
}

export function remember(name, value) {
  try { localStorage.setItem(`stilnovo.${name}`, value); } catch { /* it is only forgotten */ }
}
