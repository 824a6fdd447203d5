"use strict";
// Without a script everything is readable; this opens and closes all texts at once, and opens them for printing.
const folds = () => [...document.querySelectorAll("details:not(.figures)")];
for (const button of document.querySelectorAll("button[data-fold]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const inside = [...document.getElementById(button.dataset.fold).querySelectorAll("details")];
    const open = !inside.every((fold) => fold.open);
    inside.forEach((fold) => { fold.open = open; });
  });
}
addEventListener("beforeprint", () => folds().forEach((fold) => { fold.dataset.was = fold.open; fold.open = true; }));
addEventListener("afterprint", () => folds().forEach((fold) => { fold.open = fold.dataset.was === "true"; }));
