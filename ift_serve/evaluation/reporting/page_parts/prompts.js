// The list of prompts with the answers of all models.
const PORTION = 25;
let shown = PORTION;
const prompts = new Map();
for (const row of report.rows) { const key = row.task + "\n" + row.key; if (!prompts.has(key)) prompts.set(key, []); prompts.get(key).push(row); }
// Tasks that nobody judges are listed too.
const unjudged = [...new Set(report.rows.filter((r) => !r.error && !Object.keys(r.verdicts).length && !judges.some(([task]) => task === r.task)).map((r) => r.task))].map((task) => [task, ""]);
const listed = [...judges, ...unjudged];

const keepsWhole = (row, column) => !row.error && !!row.verdicts[column] && row.verdicts[column].every((v) => v.passed);
// One letter a model: p kept (mostly, with repeats), f not kept, e not answered, - not asked.
function outcomeOf(rows, column) {
  return report.models.map((model) => {
    const own = rows.filter((r) => r.model === model);
    if (!own.length) return "-";
    if (own.every((r) => r.error)) return "e";
    return own.filter((r) => keepsWhole(r, column)).length * 2 > own.length ? "p" : "f";
  }).join("");
}
// Places are counted in characters, of which some are two units of a string here.
function highlighted(label, text, verdicts) {
  const characters = Array.from(text), box = element("div", { class: "text", tabindex: "0", role: "group", "aria-label": label });
  const places = verdicts.map((v, i) => ({ ...v, number: i + 1 })).filter((v) => v.span && v.span[1] > v.span[0]).sort((a, b) => a.passed - b.passed || a.span[0] - b.span[0]);
  const chosen = [];
  for (const v of places) if (chosen.every((c) => v.span[1] <= c.span[0] || v.span[0] >= c.span[1])) chosen.push(v);
  let place = 0;
  for (const v of chosen.sort((a, b) => a.span[0] - b.span[0])) {
    const inside = characters.slice(v.span[0], v.span[1]).join("");
    box.append(characters.slice(place, v.span[0]).join(""), element("mark", { class: v.passed ? "good" : "bad", title: v.reason || v.family }, inside), element("sup", {}, String(v.number)));
    place = v.span[1];
  }
  box.append(characters.slice(place).join("") || "(nothing)");
  return box;
}
function verdictList(verdicts) {
  return element("ul", { class: "verdicts" }, ...verdicts.map((v, i) => element("li", {}, element("span", { class: v.passed ? "good" : "bad" }, v.passed ? "✓ kept " : "✗ broken "), `${i + 1}. ${v.family}` + (v.turn ? ` (turn ${v.turn})` : "") + (v.reason ? `: ${v.reason}` : ""))));
}
function answerOf(row, column) {
  const verdicts = row.verdicts[column] || [], passed = keepsWhole(row, column);
  const state = row.error ? "not answered" : !column ? "answered" : passed ? "kept" : "not kept";
  const box = element("div", { class: modelClass(row.model) }, element("h3", {}, named(row.model), row.repeat ? ` sample ${row.repeat + 1}` : "", " ", element("span", { class: "pill " + (passed ? "good" : row.error || column ? "bad" : "") }, state), row.is_cut ? " (cut at its length)" : ""));
  if (row.error) { box.append(element("div", { class: "text" }, row.error)); return box; }
  // A verdict with a turn points into that turn's answer; the others into the last.
  const earlier = row.earlier || [];
  earlier.forEach((said, i) => box.append(highlighted(`answer to turn ${i + 1} of ${shortName(row.model)}`, said, verdicts.map((v) => (v.turn === i + 1 ? v : { ...v, span: null })))));
  box.append(highlighted(`answer of ${shortName(row.model)}`, row.answer, verdicts.map((v) => (!v.turn || v.turn === earlier.length + 1 ? v : { ...v, span: null }))));
  if (verdicts.length) box.append(verdictList(verdicts));
  if (row.reasoning) box.append(element("details", { class: "more" }, element("summary", {}, "Thought"), element("div", { class: "text" }, row.reasoning)));
  box.append(element("p", { class: "dim" }, `${row.generated_tokens} tokens, ${number(row.seconds, 2)} s`));
  return box;
}
function pill(model, rows, column) {
  const own = rows.filter((r) => r.model === model), kept = own.filter((r) => keepsWhole(r, column)).length;
  if (!own.length) return "";
  const failed = own.every((r) => r.error), of = own.length > 1 ? ` ${kept}/${own.length}` : "";
  const state = failed ? "not answered" : !column ? "answered" : kept * 2 > own.length ? "✓" + of : "✗" + of;
  const spoken = failed || !column ? "" : kept * 2 > own.length ? "kept" : "not kept";
  return element("span", { class: "pill " + (failed ? "bad" : !column ? "" : kept * 2 > own.length ? "good" : "bad"), ...(spoken ? { role: "img", "aria-label": `${shortName(model)}: ${spoken}${of}` } : {}) }, `${shortName(model)} ${state}`);
}
function promptOf(rows, column) {
  const summary = element("summary", {}, element("span", {}, element("span", { class: "asked" }, rows[0].prompt.slice(0, 300)), element("span", { class: "key" }, `${rows[0].task} ${rows[0].key}`)), element("span", { class: "pills" }, ...report.models.map((model) => pill(model, rows, column))));
  const made = element("details", { class: "prompt" }, summary);
  // Answers are made when somebody looks: thousands of them would make the page slow.
  made.addEventListener("toggle", () => {
    if (made.open && made.childElementCount === 1) made.append(element("div", { class: "inside" }, element("h3", {}, "Prompt"), element("div", { class: "text", tabindex: "0", role: "group", "aria-label": "prompt" }, rows[0].prompt), element("div", { class: "answers" }, ...rows.map((row) => answerOf(row, column)))));
  });
  return made;
}
function showPrompts() {
  const [task, column] = listed[Number(byId("f-judge").value) || 0] || [];
  const text = byId("f-text").value.toLowerCase(), family = byId("f-family").value, outcome = byId("f-outcome").value;
  const own = [...prompts.values()].filter((rows) => rows[0].task === task);
  const fits = {
    "": () => true, differ: (rows) => new Set(outcomeOf(rows, column)).size > 1, cut: (rows) => rows.some((r) => r.is_cut), empty: (rows) => rows.some((r) => r.is_empty), error: (rows) => rows.some((r) => r.error),
  };
  const fitting = own.filter((rows) => (!text || rows.some((r) => (r.prompt + "\n" + r.answer).toLowerCase().includes(text)))
    && (!family || rows.some((r) => (r.verdicts[column] || []).some((v) => v.family === family)))
    && (fits[outcome] ? fits[outcome](rows) : outcomeOf(rows, column) === outcome));
  byId("count").textContent = `${fitting.length} of ${own.length} prompts`;
  byId("list").replaceChildren(...fitting.slice(0, shown).map((rows) => promptOf(rows, column)));
  byId("more").hidden = fitting.length <= shown;
}
function showFamilyFilter() {
  const [task, column] = listed[Number(byId("f-judge").value) || 0] || [];
  const names = [...new Set(report.scores.filter((s) => s.level === "family" && s.task === task && s.column === column).map((s) => s.family))].sort();
  options(byId("f-family"), [["", "any"], ...names.map((n) => [n, n])]);
}
function outcomes() {
  const [first, second] = report.models.map(shortName), found = [["", "any"]];
  if (report.models.length === 1) found.push(["p", "kept"], ["f", "not kept"]);
  if (report.models.length === 2) found.push(["fp", `only ${second} keeps`], ["pf", `only ${first} keeps`], ["pp", "both keep"], ["ff", "neither keeps"]);
  if (report.models.length > 1) found.push(["differ", "models differ"]);
  return [...found, ["cut", "cut answers"], ["empty", "empty answers"], ["error", "not answered"]];
}
