// All items of an evaluation, unpacked here and shown a page at a time. Texts become text nodes, never markup.
(async () => {
  const holder = document.getElementById("browser-data");
  if (!holder || !("DecompressionStream" in window)) return;
  const bytes = Uint8Array.from(atob(holder.dataset.content), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const tasks = JSON.parse(await new Response(stream).text());
  const [form, list, count, pages] = ["filter", "items", "count", "pages"].map((name) => document.getElementById(`browser-${name}`));
  const { task, category, words } = form.elements;
  const grade = () => form.querySelector("[name=grade]:checked").value;
  const size = 20;
  let at = 0;
  const add = (parent, tag, style, text) => {
    const made = parent.appendChild(document.createElement(tag));
    if (style) made.className = style;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const fill = (select, names) => {
    select.replaceChildren();
    for (const [value, name] of names) add(select, "option", "", name).value = value;
    select.closest("label").hidden = names.length < 2;
  };
  const graded = (item) => (item.v[0] >= 1 ? "right" : item.v[0] <= 0 ? "wrong" : "part");
  const haystack = (item) => {
    item.all ??= [item.i, item.c, item.q, ...(item.e ?? []).map((ending) => ending[0]), ...(item.a ?? []).map((answer) => answer[0]), ...(item.x ?? [])]
      .join("\n").toLowerCase();
    return item.all;
  };
  const italian = (element, yes) => { if (yes) element.lang = "it"; return element; };
  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);
  const ending = (body, [text, right, share, nats, chosen], item) => {
    const row = add(body, "tr", right ? "is-right" : "");
    const head = add(row, "th");
    head.scope = "row";
    const inside = add(head, "div", "ending");
    const sign = add(inside, "span");
    if (right) { add(sign, "span", "tick", "✓").ariaHidden = "true"; add(sign, "span", "unseen", "right"); }
    italian(add(inside, "span", "", text), item.l);
    const figure = add(add(row, "td", "right"), "span", chosen ? "nats picked" : "nats", percent(share));
    figure.title = `${nats} nats`;
    if (chosen) add(figure, "span", "unseen", " chosen");
  };
  const show = (item, names) => {
    const article = add(list, "article", "item");
    const line = add(article, "p", "aside");
    const kind = graded(item);
    add(line, "span", `badge ${{ right: "improved", wrong: "regressed" }[kind] ?? ""}`, { right: "right", wrong: "wrong", part: "in part" }[kind]);
    add(line, "code", "", item.i);
    if (item.c) add(line, "span", "dot-between", item.c);
    names.forEach((name, index) => add(line, "span", "dot-between", `${name} ${item.v[index]}`));
    if (item.t) add(line, "span", "dot-between", "cut on the left to fit the model");
    if (item.q) italian(add(article, "p", "voice", item.q), item.l);
    if (item.e) {
      const table = add(article, "table", "endings");
      const head = add(add(table, "thead"), "tr");
      for (const [name, style] of [["Option", ""], ["Probability", "right"]]) add(head, "th", style, name).scope = "col";
      const body = add(table, "tbody");
      item.e.forEach((part) => ending(body, part, item));
    }
    for (const [index, [text, value, isItalian]] of (item.a ?? []).entries()) {
      add(article, "p", "aside", item.a.length > 1 ? `Answer ${index + 1}, ${names[0]} ${value}` : "The model's answer");
      italian(add(article, "div", "voice", text || "(nothing)"), isItalian);
    }
    if (item.x) italian(add(add(article, "p", "aside", "Right: "), "span", "", item.x.join(" / ")), item.l);
  };
  const draw = () => {
    const { items, metrics } = tasks[task.value];
    const wanted = words.value.trim().toLowerCase();
    const found = items.filter((item) => (grade() === "all" || graded(item) === grade())
      && (!category.value || item.c === category.value) && (!wanted || haystack(item).includes(wanted)));
    at = Math.max(0, Math.min(at, Math.ceil(found.length / size) - 1));
    const shown = found.slice(at * size, (at + 1) * size);
    count.textContent = found.length ? `${at * size + 1}–${at * size + shown.length} of ${found.length} ${found.length === 1 ? "item" : "items"}` : "No item is like this.";
    list.replaceChildren();
    shown.forEach((item) => show(item, metrics));
    pages.hidden = found.length <= size;
    const [back, on] = pages.querySelectorAll("button");
    back.disabled = at === 0;
    on.disabled = (at + 1) * size >= found.length;
  };
  const choose = () => {
    const categories = [...new Set(tasks[task.value].items.map((item) => item.c).filter(Boolean))];
    fill(category, [["", "All"], ...categories.map((name) => [name, name])]);
    const kinds = new Set(tasks[task.value].items.map(graded));
    for (const button of form.querySelectorAll("[name=grade]")) button.closest("label").hidden = button.value === "part" && !kinds.has("part");
    if (grade() === "part" && !kinds.has("part")) form.querySelector("[value=all]").checked = true;
    if (categories.length < 2) category.closest("label").hidden = true;
  };
  fill(task, tasks.map(({ name }, index) => [index, name]));
  choose();
  task.addEventListener("change", choose);
  form.addEventListener("input", () => { at = 0; draw(); });
  pages.addEventListener("click", ({ target }) => {
    if (!target.value) return;
    at += +target.value;
    draw();
    count.scrollIntoView({ block: "nearest" });
  });
  document.getElementById("browser-off").hidden = true;
  form.hidden = false;
  draw();
})();
