"use strict";
// Elements, and numbers as people read them. Texts become text nodes only; nothing is ever parsed as markup.
const report = JSON.parse(document.getElementById("report").textContent);
const byId = (id) => document.getElementById(id);
const MINUS = "\u2212";
const number = (x, digits = 1) => x.toFixed(digits).replace("-", MINUS);
const percent = (x) => number(100 * x) + "\u00a0%";
const points = (x) => (x > 0 ? "+" : "") + number(100 * x);
const between = (low, high, show = (x) => number(100 * x)) => `${show(low)} to ${show(high)}`;
const chance = (p) => (p < 0.001 ? "< 0.001" : p.toPrecision(2));

function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) key === "class" ? (made.className = value) : made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function drawn(name, options = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(options)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
// On a narrow screen each row is a card and each cell says its own head.
function table(label, heads, rows) {
  const head = element("tr", { role: "row" }, ...heads.map((text) => element("th", { scope: "col", role: "columnheader" }, text)));
  const body = rows.map((cells) => element("tr", { role: "row" }, ...cells.map((cell, i) =>
    i ? element("td", { "data-head": heads[i], role: "cell" }, cell) : element("th", { scope: "row", role: "rowheader" }, cell))));
  return element("table", { "aria-label": label, role: "table" }, element("thead", { role: "rowgroup" }, head), element("tbody", { role: "rowgroup" }, ...body));
}
function options(select, values) {
  select.replaceChildren(...values.map(([value, text]) => element("option", { value }, text)));
}

// A version is a hash: it is told only where two models share a name. The whole stands at the end of the page.
const COLOURS = 6;
const modelClass = (model) => "m" + (report.models.indexOf(model) % COLOURS);
function shortName(model) {
  const [name, version] = model.split("@");
  const shared = (text) => report.models.filter((other) => other === text || other.startsWith(text + "@") || (text.includes("@") && other.startsWith(text))).length > 1;
  if (!version || !shared(name)) return name;
  return shared(`${name}@${version.slice(0, 8)}`) ? model : `${name}@${version.slice(0, 8)}`;
}
const named = (model) => element("span", { class: modelClass(model), title: model }, element("span", { class: "dot" }), shortName(model));
const legend = () => element("ul", { class: "legend", "aria-label": "Models" }, ...report.models.map((model) => element("li", {}, named(model))));

// What is judged: a task with one of its columns, the column that counts first.
const judges = [...new Map(report.scores.filter((s) => s.level === "prompt").map((s) => [s.task + "\n" + s.column, [s.task, s.column]])).values()];
const mainJudges = judges.filter(([task], i) => judges.findIndex(([other]) => other === task) === i);
const judgeName = ([task, column]) => (column ? `${task}, ${column}` : `${task}, not judged`);
const covered = new Map(report.coverage.map((c) => [c.model + "\n" + c.task, c]));
const scoreOf = (level, model, task, column, family = "all") => report.scores.find((s) => s.level === level && s.model === model && s.task === task && s.column === column && s.family === family);
