"use strict";
// Without a script everything but the browser of all items is readable; this opens and closes all texts at once, opens them for
// printing, searches in items, and offers tables and figures as files.
const folds = () => [...document.querySelectorAll("details:not(.figures, .export)")];
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

// Files are made here and nothing is asked of a network.
const exported = JSON.parse(document.getElementById("exports").dataset.content);
const slug = (text) => text.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
const save = (name, blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${slug(document.querySelector("h1").textContent)}-${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
const menu = (what, choices) => {
  const fold = document.createElement("details");
  fold.className = "export";
  const head = fold.appendChild(document.createElement("summary"));
  head.textContent = `Download ${what}`;
  for (const [name, act] of choices) {
    const button = fold.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", act);
  }
  return fold;
};
for (const [key, texts] of Object.entries(exported.tables)) {
  const place = document.querySelector(`[id="${key}"] .body`);
  if (!place) continue;
  const file = (format, suffix) => () => save(`${key}${suffix}`, new Blob([texts[format]], { type: "text/plain;charset=utf-8" }));
  place.append(menu("this table", [["CSV", file("csv", ".csv")], ["LaTeX", file("latex", ".tex")], ["Markdown", file("markdown", ".md")]]));
}
const alone = (chart) => {
  const copy = chart.cloneNode(true);
  const [, , width, height] = chart.getAttribute("viewBox").split(" ");
  const make = (tag, values) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(values).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  };
  const style = make("style", {});
  style.textContent = exported.css;
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.prepend(style, make("rect", { width, height, fill: "#fff" }));
  return { text: new XMLSerializer().serializeToString(copy), width: +width, height: +height };
};
const picture = (key, chart) => () => {
  const { text, width, height } = alone(chart);
  const image = new Image();
  image.addEventListener("load", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width * 3, height * 3];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(`${key}.png`, blob), "image/png");
  });
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
};
for (const chart of document.querySelectorAll("figure .wide svg.chart")) {
  const key = chart.getAttribute("aria-labelledby").split("-736")[0];
  const drawing = () => save(`${key}.svg`, new Blob([alone(chart).text], { type: "image/svg+xml" }));
  chart.closest("figure").append(menu("this figure", [["SVG", drawing], ["PNG", picture(key, chart)]]));
}
