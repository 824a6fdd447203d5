"use strict";
// Without a script everything is readable; this opens and closes all texts at once, opens them for printing, and
// searches in items.
const folds = () => [...document.querySelectorAll("details:not(.figures)")];
for (const button of document.querySelectorAll("button[data-fold]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const inside = [...document.getElementById(button.dataset.fold).querySelectorAll("details")];
    const open = !inside.every((fold) => fold.open);
    inside.forEach((fold) => { fold.open = open; });
  });
}
for (const field of document.querySelectorAll("input[data-search]")) {
  field.closest("label").hidden = false;
  const items = [...document.getElementById(field.dataset.search).querySelectorAll(".item")];
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    items.forEach((item) => { item.hidden = !item.textContent.toLowerCase().includes(wanted); });
  });
}
addEventListener("beforeprint", () => folds().forEach((fold) => { fold.dataset.was = fold.open; fold.open = true; }));
addEventListener("afterprint", () => folds().forEach((fold) => { fold.open = fold.dataset.was === "true"; }));
