// Plots as inline SVG. Each has a text that says the same.
function intervalPlot(score, domain = [0, 1]) {
  const width = 320, x = (share) => 8 + ((share - domain[0]) / (domain[1] - domain[0])) * (width - 16);
  const svg = drawn("svg", { viewBox: `0 0 ${width} 20`, role: "img", "aria-label": `${percent(score.value)}, 95 % interval ${between(score.low, score.high)}`, class: modelClass(score.model) });
  svg.append(drawn("line", { class: "axis", x1: x(domain[0]), x2: x(domain[1]), y1: 10, y2: 10 }));
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) svg.append(drawn("line", { class: "axis", x1: x(tick), x2: x(tick), y1: 6, y2: 14 }));
  svg.append(drawn("line", { class: "range", x1: x(score.low), x2: x(score.high), y1: 10, y2: 10 }), drawn("circle", { class: "point", cx: x(score.value), cy: 10, r: 5.5 }));
  return svg;
}
function dumbbell(scores) {
  const width = 420, x = (share) => 8 + share * (width - 16);
  const said = scores.map((s) => `${shortName(s.model)} ${percent(s.value)}`).join(", ");
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${8 + 10 * scores.length}`, role: "img", "aria-label": said });
  const values = scores.map((s) => x(s.value)), middle = 4 + 5 * scores.length;
  svg.append(drawn("line", { class: "axis", x1: x(0), x2: x(1), y1: middle, y2: middle }));
  if (scores.length > 1) svg.append(drawn("line", { class: "link", x1: Math.min(...values), x2: Math.max(...values), y1: middle, y2: middle }));
  scores.forEach((s, i) => {
    const y = scores.length > 1 ? 9 + 10 * i : middle;
    svg.append(drawn("g", { class: modelClass(s.model) }, drawn("line", { class: "range", x1: x(s.low), x2: x(s.high), y1: y, y2: y }), drawn("circle", { class: "point", cx: x(s.value), cy: y, r: 5.5 })));
  });
  return svg;
}
function differencePlot(c, reach) {
  const width = 420, x = (d) => 8 + ((d + reach) / (2 * reach)) * (width - 16);
  const said = `${points(c.difference)} points, 95 % interval ${between(c.low, c.high, points)}`;
  const svg = drawn("svg", { viewBox: `0 0 ${width} 26`, role: "img", "aria-label": said, class: modelClass(c.second) });
  const blind = Math.min(c.smallest, reach);
  svg.append(drawn("rect", { class: "band", x: x(-blind), y: 2, width: x(blind) - x(-blind), height: 22, rx: 4 }), drawn("line", { class: "axis", x1: x(-reach), x2: x(reach), y1: 13, y2: 13 }), drawn("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: 26 }));
  svg.append(drawn("line", { class: "range", x1: x(c.low), x2: x(c.high), y1: 13, y2: 13 }), drawn("circle", { class: "point", cx: x(c.difference), cy: 13, r: 6 }));
  return svg;
}
// `lines`: [{model, points: [{x, y, low, high}]}]; y is a share.
function curvePlot(label, xLabel, lines) {
  const width = 640, height = 300, left = 48, bottom = 44, all = lines.flatMap((l) => l.points.map((p) => p.x));
  const lowest = Math.min(...all), highest = Math.max(...all, lowest + 1);
  const x = (value) => left + ((value - lowest) / (highest - lowest)) * (width - left - 16), y = (share) => 12 + (1 - share) * (height - bottom - 12);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) svg.append(drawn("line", { class: "axis", x1: left, x2: width - 16, y1: y(share), y2: y(share) }), drawn("text", { class: "tick", x: left - 8, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  let last = -Infinity;
  for (const value of [...new Set(all)].sort((a, b) => a - b)) if (x(value) - last > 34) { svg.append(drawn("text", { class: "tick", x: x(value), y: height - 24, "text-anchor": "middle" }, String(value))); last = x(value); }
  svg.append(drawn("text", { class: "tick", x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, xLabel));
  for (const line of lines) {
    const own = drawn("g", { class: modelClass(line.model) }, drawn("polyline", { class: "line", points: line.points.map((p) => `${x(p.x)},${y(p.y)}`).join(" ") }));
    for (const p of line.points) own.append(drawn("line", { class: "range", x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high) }), drawn("circle", { class: "point", cx: x(p.x), cy: y(p.y), r: 4 }));
    svg.append(own);
  }
  return svg;
}
// The scale above a column of plots; `ticks`: [share of the width, text].
function scale(width, ticks) {
  return drawn("svg", { viewBox: `0 0 ${width} 14`, "aria-hidden": "true" }, ...ticks.map(([at, text]) => drawn("text", { class: "tick", x: 8 + at * (width - 16), y: 11, "text-anchor": at === 0 ? "start" : at === 1 ? "end" : "middle" }, text)));
}
const SHARES = [[0, "0 %"], [0.25, "25 %"], [0.5, "50 %"], [0.75, "75 %"], [1, "100 %"]];
function bars(label, above, rows) {
  const head = element("li", { class: "scale", "aria-hidden": "true" }, element("span"), above, element("span"));
  return element("ul", { class: "bars", "aria-label": label }, head, ...rows.map(([name, plot, said]) => element("li", {}, element("div", { class: "label" }, ...name), plot, element("div", { class: "said" }, ...said))));
}
