// Where one writes: the message, the mode, and the sampling controls of the report.
import { $, h, icon, recall, remember } from "./dom.js";
import { faultText, t } from "./i18n.js";

const DEFAULTS = { temperature: 0.6, top_p: 0.95, max_tokens: 256, seed: 42 };
const SHAPES = {
  temperature: { type: "range", min: 0, max: 2, step: 0.05 },
  top_p: { type: "range", min: 0.05, max: 1, step: 0.05 },
  max_tokens: { type: "number", min: 1, max: 8192, step: 1 },
  seed: { type: "number", min: 0, max: 2147483647, step: 1 },
};
const sampling = { ...DEFAULTS };
let mode = "library";
let state = { modes: ["library"], writer: "" };

export const settings = () => ({ mode, sampling: { ...sampling }, system: state.writer ? recall("system", "") : "" });

function restore() {
  try { Object.assign(sampling, JSON.parse(recall("sampling", "{}"))); } catch { /* the defaults stand */ }
  const wanted = recall("mode", "library");
  mode = state.modes.includes(wanted) ? wanted : state.modes[0];
}

function set(name, input, output) {
  const { min, max } = SHAPES[name];
  const value = Number(input.value);
  if (input.value === "" || Number.isNaN(value)) return;
  sampling[name] = Math.min(max, Math.max(min, value));
  if (output) output.value = sampling[name].toFixed(2);
  remember("sampling", JSON.stringify(sampling));
}

function control(name) {
  const shape = SHAPES[name];
  const id = `control-${name}`;
  const output = shape.type === "range" ? h("output", { for: id }, sampling[name].toFixed(2)) : null;
  const input = h("input", { ...shape, id, value: sampling[name], disabled: !state.writer });
  input.addEventListener("input", () => set(name, input, output));
  input.addEventListener("change", () => { input.value = sampling[name]; });
  return h("div.control", {}, h("label", { for: id }, t(name)), output ?? h("span"), input);
}

function instructions() {
  const box = h("textarea", { id: "control-system", rows: 2, maxlength: 8000, placeholder: t("system_placeholder") }, recall("system", ""));
  box.addEventListener("input", () => remember("system", box.value));
  return h("div.control.wide", {}, h("label", { for: "control-system" }, t("system")), h("span"), box);
}

/** Everything whose words depend on language or state. */
export function draw(known = state) {
  state = known;
  restore();
  $("modes").replaceChildren($("modes").firstElementChild, ...(state.modes.length < 2 ? [] : state.modes.map((one) =>
    h("label", {}, h("input", { type: "radio", name: "mode", value: one, checked: one === mode, onchange: () => { remember("mode", one); choose(one); } }), t(`mode_${one}`)))));
  $("controls").replaceChildren($("controls").firstElementChild, state.writer ? "" : h("p", {}, t("no_writer")), ...Object.keys(SHAPES).map(control), state.writer ? instructions() : "");
  choose(mode);
}

function choose(one) {
  mode = one;
  $("message").placeholder = t(one === "chat" ? "placeholder_chat" : "placeholder");
}

function fit() {
  const box = $("message");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 192)}px`;
  $("send").disabled = !box.value.trim();
}

/** What stands in the box is put there, or taken from it. */
export function fill(text) {
  $("message").value = text;
  fit();
}

export function busy(writing) {
  $("stop").hidden = !writing;
  $("send").hidden = writing;
}

/** A trouble that concerns what one was about to do; it stays until dismissed or the next try. */
export function notice(error = null, gaps = {}) {
  const place = $("notice");
  place.hidden = !error;
  place.replaceChildren();
  if (!error) return;
  const text = typeof error === "string" ? error : faultText(error, gaps);
  place.append(h("span", {}, text), h("button.icon", { type: "button", "aria-label": t("dismiss"), onclick: () => notice() }, icon("close")));
}

export function begin(onSend, onStop) {
  const box = $("message");
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (text && $("stop").hidden) onSend(text);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
  box.addEventListener("input", fit);
  $("stop").addEventListener("click", onStop);
  $("tune").addEventListener("click", () => {
    const open = $("controls").hidden;
    $("controls").hidden = !open;
    $("tune").setAttribute("aria-expanded", String(open));
  });
  fit();
}
