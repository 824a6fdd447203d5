// Questions to the person: native dialogs, which keep the focus and close with Escape by themselves.
import { h } from "./dom.js";
import { faultText, t } from "./i18n.js";

/** Show a dialog until it is closed; resolves with its return value. `build(close)` gives its content. */
export function show(className, title, build) {
  return new Promise((resolve) => {
    const close = (value = "") => dialog.close(value);
    const dialog = h(`dialog${className ? `.${className}` : ""}`, { "aria-label": title }, h("div.inside", {}, h("h2", {}, title), build(close)));
    dialog.addEventListener("click", (event) => { if (event.target === dialog) close(); });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function confirm(title, text, act) {
  const chosen = await show("", title, (close) => [
    h("p", {}, text),
    h("div.acts", {},
      h("button.button", { type: "button", autofocus: true, onclick: () => close() }, t("cancel")),
      h("button.button.grave-act", { type: "button", onclick: () => close("yes") }, act)),
  ]);
  return chosen === "yes";
}

/** A line of text, or null. */
export async function prompt(title, label, value) {
  const input = h("input", { type: "text", value, maxlength: 200, required: true, autofocus: true });
  const chosen = await show("", title, (close) => h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); close("yes"); } },
    h("label.field", {}, label, input),
    h("div.acts", {},
      h("button.button", { type: "button", onclick: () => close() }, t("cancel")),
      h("button.button.main-act", { type: "submit" }, t("save")))));
  return chosen === "yes" ? input.value.trim() : null;
}

export function shortcuts() {
  const rows = [
    ["Enter", "key_send"], ["Shift Enter", "key_line"], ["/", "key_focus"], ["Alt N", "key_new"], ["Alt B", "key_shelf"],
    ["Alt C", "key_quotes"], ["Alt R", "key_again"], ["Esc", "key_escape"], ["?", "key_help"],
  ];
  return show("", t("shortcuts"), (close) => [
    h("dl.keys", {}, rows.flatMap(([keys, meaning]) => [
      h("dt", {}, keys.split(" ").flatMap((key, i) => [i ? " " : null, h("kbd", {}, key)])), h("dd", {}, t(meaning))])),
    h("div.acts", {}, h("button.button", { type: "button", autofocus: true, onclick: () => close() }, t("close"))),
  ]);
}

/** Ask for the service's token until it is right. */
export async function token(post) {
  let trouble = "";
  for (;;) {
    const input = h("input", { type: "password", autocomplete: "current-password", required: true, autofocus: true });
    await show("", t("token_title"), (close) => h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); close("yes"); } },
      h("p", {}, t("token_text")), h("label.field", {}, t("token"), input),
      trouble ? h("p.grave", { role: "alert" }, trouble) : null,
      h("div.acts", {}, h("button.button.main-act", { type: "submit" }, t("enter")))));
    try {
      await post("/api/session", { token: input.value });
      return;
    } catch (error) {
      trouble = faultText(error);
    }
  }
}
