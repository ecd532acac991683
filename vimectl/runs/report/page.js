"use strict";
// Pointing at a chart shows the values of the nearest step there, and the same step in every other chart.
const charts = [...document.querySelectorAll("figure")].map((figure) => ({
  figure,
  svg: figure.querySelector("svg"),
  cursor: figure.querySelector(".cursor"),
  tip: figure.querySelector(".tip"),
  data: JSON.parse(figure.querySelector("script").textContent),
}));

function nearest(sorted, wanted) {
  let low = 0, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low > 0 && wanted - sorted[low - 1] < sorted[low] - wanted ? low - 1 : low;
}

function setCursor(chart, i) {
  chart.cursor.setAttribute("x1", chart.data.xs[i]);
  chart.cursor.setAttribute("x2", chart.data.xs[i]);
  chart.cursor.setAttribute("visibility", "visible");
}

function setTip(chart, i) {
  const { tip, data, figure, svg } = chart;
  tip.replaceChildren(`step ${data.steps[i]}`);
  data.names.forEach((name, n) => {
    const row = document.createElement("div"), key = document.createElement("i");
    key.className = `c${data.colors[n]}`;
    row.append(key, `${name} ${data.texts[i][n]}`);
    tip.append(row);
  });
  tip.hidden = false;
  const scale = svg.clientWidth / svg.viewBox.baseVal.width, x = svg.offsetLeft || 12;
  const left = (svg.getBoundingClientRect().left - figure.getBoundingClientRect().left || x) + data.xs[i] * scale;
  const fits = left + 14 + tip.offsetWidth < figure.clientWidth;
  tip.style.left = `${Math.max(4, fits ? left + 12 : left - 12 - tip.offsetWidth)}px`;
  tip.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + 8}px`;
}

function clear() {
  for (const chart of charts) {
    chart.tip.hidden = true;
    chart.cursor.setAttribute("visibility", "hidden");
  }
}

for (const chart of charts) {
  const point = (event) => {
    const box = chart.svg.getBoundingClientRect();
    const i = nearest(chart.data.xs, ((event.clientX - box.left) / box.width) * chart.svg.viewBox.baseVal.width);
    clear();
    for (const other of charts) setCursor(other, nearest(other.data.steps, chart.data.steps[i]));
    setTip(chart, i);
  };
  chart.svg.addEventListener("pointermove", point);
  chart.svg.addEventListener("pointerdown", point);
  chart.svg.addEventListener("pointerleave", clear);
}

// The choice above the evaluation answers hides the rows of other problems.
document.querySelector("#outcome")?.addEventListener("change", (event) => {
  const wanted = event.target.value;
  for (const row of document.querySelectorAll(".answers tbody tr")) {
    row.hidden = wanted !== "" && !row.classList.contains(wanted);
  }
});
