"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const make = (name, text, parent) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
};
const say = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 }));

// Colours: as the system says, or as chosen for this visit.
document.getElementById("theme").onclick = (event) => {
  const modes = ["auto", "light", "dark"];
  const next = modes[(modes.indexOf(event.target.textContent) + 1) % 3];
  document.documentElement.className = next === "auto" ? "" : next;
  event.target.textContent = next;
};

// Charts: the values nearest to the pointer, or to the arrow keys.
for (const figure of document.querySelectorAll(".chart")) {
  const chart = data.charts[figure.dataset.chart];
  const plot = figure.querySelector(".plot");
  const [left, top, width, height] = chart.box;
  const all = [...new Set(chart.series.flatMap((line) => line.x))].sort((a, b) => a - b);
  const cursor = make("div");
  cursor.className = "cursor";
  const place = (x) => left + (width * (x - chart.xlim[0])) / (chart.xlim[1] - chart.xlim[0]);
  let at = -1;
  const clear = () => {
    plot.querySelectorAll(".dot").forEach((dot) => dot.remove());
    cursor.remove();
  };
  const show = (number) => {
    at = Math.min(Math.max(number, 0), all.length - 1);
    const x = all[at];
    clear();
    cursor.style.cssText = `left:${100 * place(x)}%;top:${100 * top}%;height:${100 * height}%`;
    plot.append(cursor);
    const said = [];
    for (const line of chart.series) {
      const index = line.x.indexOf(x);
      if (line.colour < 0 || index < 0 || line.y[index] === null) continue;
      const dot = make("div", undefined, plot);
      const high = (line.y[index] - chart.ylim[0]) / (chart.ylim[1] - chart.ylim[0]);
      dot.className = "dot";
      dot.style.cssText = `left:${100 * place(x)}%;top:${100 * (top + height * (1 - high))}%;--c:var(--c${line.colour % 10})`;
      said.push(`${line.name} ${say(line.y[index])}`);
    }
    figure.querySelector("output").textContent = `${chart.x} ${chart.ticks[x] ?? say(x)}: ${said.join(", ")}`;
  };
  plot.onpointermove = plot.onpointerdown = (event) => {
    const box = plot.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    let best = 0;
    all.forEach((value, number) => {
      if (Math.abs(place(value) - x) < Math.abs(place(all[best]) - x)) best = number;
    });
    show(best);
  };
  plot.onpointerleave = clear;
  figure.onblur = clear;
  figure.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -all.length, End: all.length }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at + step);
  };
}

// Tables: a click on a head sorts by it, numbers the greatest first.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.firstElementChild.onclick = () => {
      const up = head.ariaSort === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = up ? "ascending" : "descending";
      const value = (row) => Number(row.cells[column].dataset.v ?? row.cells[column].textContent);
      const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? 1 : -1) * (value(a) - value(b)));
      table.tBodies[0].append(...rows);
    };
  });
}

// The confusion matrix, counted or as shares of each row.
const confusion = document.getElementById("confusion");
if (confusion) {
  const tools = make("div", undefined, confusion);
  tools.className = "tools";
  const choice = make("select", undefined, make("label", "show ", tools));
  for (const name of ["shares of the true class (recall)", "shares of the prediction (precision)", "pixels"]) make("option", name, choice);
  const wide = make("div", undefined, confusion);
  wide.className = "wide";
  const rows = data.matrix.map((row) => row.reduce((a, b) => a + b, 0));
  const columns = data.names.map((_, column) => data.matrix.reduce((sum, row) => sum + row[column], 0));
  const draw = () => {
    const table = make("table");
    const head = make("tr", undefined, make("thead", undefined, table));
    make("th", "true \\ predicted", head);
    data.names.forEach((name) => (make("th", name, head).title = name));
    const body = make("tbody", undefined, table);
    data.matrix.forEach((row, i) => {
      const line = make("tr", undefined, body);
      make("th", data.names[i], line).title = data.names[i];
      row.forEach((count, j) => {
        const share = count / Math.max(choice.selectedIndex === 1 ? columns[j] : rows[i], 1);
        const cell = make("td", choice.selectedIndex === 2 ? count.toLocaleString("en") : (100 * share).toFixed(1) + " %", line);
        cell.title = `${data.names[i]} taken for ${data.names[j]}: ${count.toLocaleString("en")} pixels`;
        cell.style.background = `color-mix(in srgb, var(--c${i === j ? 2 : 1}) ${Math.round(65 * share)}%, transparent)`;
      });
    });
    wide.replaceChildren(table);
  };
  choice.onchange = draw;
  draw();
}

// Panels: the errors lie over the photo; sorting; a click enlarges, one more shows a picture alone, arrow keys go on.
const panels = document.getElementById("panels");
if (panels) {
  const fill = (article) => {
    const photo = article.querySelector(".photo img");
    for (const over of article.querySelectorAll(".errors .pic")) {
      const under = photo.cloneNode();
      under.className = "under";
      over.prepend(under);
    }
  };
  panels.querySelectorAll("article").forEach(fill);
  const by = document.getElementById("by");
  const order = document.getElementById("order");
  const sort = () => {
    const score = (article) => JSON.parse(article.dataset.scores)[by.value];
    const articles = [...panels.children].sort((a, b) => order.value * (score(a) - score(b)));
    for (const article of articles) article.hidden = score(article) === null;
    panels.append(...articles);
  };
  by.onchange = order.onchange = sort;
  const zoom = document.getElementById("zoom");
  const top = make("div", undefined, zoom);
  top.className = "bartop";
  const title = make("h3", "", top);
  for (const [text, step] of [["‹", -1], ["›", 1]]) {
    const button = make("button", text, top);
    button.ariaLabel = step < 0 ? "previous" : "next";
    button.onclick = () => go(step);
  }
  make("button", "close", top).onclick = () => zoom.close();
  const pictures = make("div", undefined, zoom);
  make("p", "A click on a picture, or Enter, shows it alone; the arrow keys go to other photos.", zoom).className = "note";
  let shown;
  let picked = -1;
  const pick = (number) => {
    picked = number;
    pictures.classList.toggle("one", picked >= 0);
    [...pictures.children].forEach((figure, at) => figure.classList.toggle("picked", at === picked));
  };
  const open = (article) => {
    const focused = [...pictures.children].indexOf(document.activeElement);
    shown = article;
    title.replaceChildren(...[...article.querySelector("h3").childNodes].map((child) => child.cloneNode(true)));
    pictures.className = article.querySelector(".pics").className;
    pictures.replaceChildren(...[...article.querySelector(".pics").children].map((child) => child.cloneNode(true)));
    [...pictures.children].forEach((figure, at) => {
      figure.tabIndex = 0;
      figure.onclick = () => pick(picked < 0 ? at : -1);
      figure.onkeydown = (event) => event.key === "Enter" && figure.onclick();
    });
    pick(picked);
    const photo = article.querySelector(".photo img");
    pictures.style.setProperty("--aspect", photo.naturalWidth / photo.naturalHeight);
    pictures.style.setProperty("--own", `${photo.naturalWidth}px`);
    if (!zoom.open) zoom.showModal();
    else if (focused >= 0) pictures.children[focused].focus();
  };
  const go = (step) => {
    const visible = [...panels.children].filter((article) => !article.hidden);
    open(visible[(visible.indexOf(shown) + step + visible.length) % visible.length]);
  };
  zoom.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    go(step);
  };
  zoom.onclick = (event) => {
    if (event.target === zoom) zoom.close();
  };
  zoom.onclose = () => {
    picked = -1;
    shown.querySelector(".pics").focus();
  };
  panels.onclick = (event) => {
    const article = event.target.closest("article");
    if (event.target.closest(".pics")) open(article);
  };
}
