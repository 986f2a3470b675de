"use strict";
// The page's controls and charts. All text from runs reaches the page as text nodes or as values of charts.
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { ...content.state };
  const views = new Map();

  async function draw(name) {
    const place = document.getElementById(`chart-${name}`);
    if (!place) return;
    views.get(name)?.finalize();
    try {
      // ast: expressions are interpreted, so the page needs no eval and can forbid it.
      const drawn = await vegaEmbed(place, content.charts[name], {
        actions: false, ast: true, renderer: "svg", config: content.themes[dark.matches ? "dark" : "light"],
        tooltip: { theme: dark.matches ? "dark" : "light" },
      });
      views.set(name, drawn);
      drawn.view.addEventListener("click", (event, item) => {
        const round = Number(item?.datum?.round);
        if (item?.datum && "round" in item.datum && Number.isInteger(round)) set("round", round);
      });
      await tell(name);
    } catch (error) {
      place.textContent = `This chart could not be drawn: ${error.message}`;
      place.classList.add("failed");
      console.error(error);
    }
  }

  async function tell(name) {
    const view = views.get(name)?.view;
    if (!view) return;
    for (const parameter of content.charts[name].usermeta.listens) view.signal(parameter, state[parameter]);
    await view.runAsync();
  }

  function set(parameter, value) {
    state[parameter] = value;
    for (const control of document.querySelectorAll("[data-parameter]")) {
      if (control.dataset.parameter === parameter && control.value !== String(value)) control.value = String(value);
    }
    if (parameter === "round" || parameter === "shown" || parameter === "split") describe();
    for (const name of views.keys()) {
      if (content.charts[name].usermeta.listens.includes(parameter)) tell(name);
    }
  }

  function describe() {
    const label = document.getElementById("round-shown");
    if (label) label.textContent = String(state.round);
    const list = document.getElementById("round-facts");
    if (!list) return;
    list.replaceChildren();
    for (const fact of content.facts) {
      if (fact.round !== state.round || !state.shown.includes(fact.series)) continue;
      const entry = document.createElement("li");
      entry.textContent = fact.text;
      list.append(entry);
    }
    if (!list.childElementCount) list.append(document.createElement("li"));
  }

  for (const control of document.querySelectorAll("[data-parameter]")) {
    control.addEventListener("input", () => {
      const number = typeof state[control.dataset.parameter] === "number";
      set(control.dataset.parameter, number ? Number(control.value) : control.value);
    });
  }
  for (const button of document.querySelectorAll("[data-series]")) {
    button.addEventListener("click", () => {
      const series = content.state.shown[Number(button.dataset.series)];
      const shown = state.shown.includes(series);
      button.setAttribute("aria-pressed", String(!shown));
      const kept = new Set(shown ? state.shown.filter((name) => name !== series) : [...state.shown, series]);
      set("shown", content.state.shown.filter((name) => kept.has(name)));
    });
  }

  async function drawAll() {
    for (const name of Object.keys(content.charts)) await draw(name);
    document.documentElement.dataset.drawn = String(views.size);
  }
  dark.addEventListener("change", drawAll);
  describe();
  drawAll();
})();
