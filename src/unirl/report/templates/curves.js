"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const places = [...document.querySelectorAll(".curve")];
const colorOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colorway = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#14b8a6", "#ec4899", "#84cc16", "#94a3b8", "#ca8a04"];
// A category has the same color in all charts.
const names = charts.flatMap((chart) => chart.traces.map((trace) => trace.name));
const repeated = [...new Set(names)].filter((name) => names.filter((one) => one === name).length > 1);
const colorsOfTraces = (chart) => {
  const places = chart.traces.map((trace) => repeated.indexOf(trace.name));
  const free = [...colorway.keys()].filter((place) => !places.includes(place));
  return places.map((place) => colorway[(place < 0 ? free.shift() ?? 0 : place) % colorway.length]);
};
const colors = () => ({
  "font.color": colorOf("--text"), "xaxis.gridcolor": colorOf("--line"), "yaxis.gridcolor": colorOf("--line"),
  "xaxis.zerolinecolor": colorOf("--line"), "yaxis.zerolinecolor": colorOf("--line"),
  "hoverlabel.bgcolor": colorOf("--background"), "hoverlabel.font.color": colorOf("--text"),
});
// No fractions of steps where there are few of them.
const wholeSteps = (chart) => {
  const steps = chart.traces.flatMap((trace) => trace.x);
  return Math.max(...steps) - Math.min(...steps) < 8 ? { dtick: 1 } : {};
};
const draw = (place, chart) => {
  const traceColors = colorsOfTraces(chart);
  const data = chart.traces.map((trace, i) => ({
    ...trace, type: "scatter", mode: trace.x.length > 30 ? "lines" : "lines+markers", marker: { size: 5 },
    line: { width: trace.name === "overall" ? 4 : 1.8, color: traceColors[i] },
  }));
  const layout = {
    margin: { l: 48, r: 12, t: 12, b: 36 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    yaxis: { tickformat: chart.unit ? ".1~%" : undefined, exponentformat: "e", automargin: true },
    xaxis: { ...wholeSteps(chart), title: { text: "step", standoff: 4 } }, hovermode: "x unified", showlegend: true,
    legend: { orientation: "h", y: -0.22, font: { size: 11 } }, font: { family: "system-ui, sans-serif", size: 12 },
  };
  Plotly.newPlot(place, data, layout, { responsive: true, displayModeBar: false }).then(() => Plotly.relayout(place, colors()));
};
// Those that are out of sight are drawn when they come near: a run may have many.
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    observer.unobserve(entry.target);
    draw(entry.target, charts[places.indexOf(entry.target)]);
  }
}, { rootMargin: "800px" });
places.forEach((place) => observer.observe(place));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  places.filter((place) => place.querySelector("svg")).forEach((place) => Plotly.relayout(place, colors()));
});
