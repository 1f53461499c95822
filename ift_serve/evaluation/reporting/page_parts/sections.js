// The sections above the prompts.
function verdictWords(c) {
  const kind = c.is_significant ? (c.difference > 0 ? "good" : "bad") : "dim";
  const word = c.is_significant ? (c.difference > 0 ? "better" : "worse") : "no difference shown";
  return [element("strong", { class: kind }, points(c.difference)), " points ", element("span", { class: kind }, `(${word})`)];
}
function showHeadline() {
  const [task, column] = mainJudges[0] || [], main = report.comparisons.find((c) => c.task === task && c.column === column);
  const score = task && scoreOf("prompt", report.models[0], task, column);
  let said = "Instruction adherence";
  if (main) {
    const a = scoreOf("prompt", main.first, task, column), b = scoreOf("prompt", main.second, task, column);
    said = `${shortName(main.second)} keeps ${percent(b.value)} of ${task}'s prompts, ${shortName(main.first)} ${percent(a.value)}`;
    byId("subline").textContent = `${points(main.difference)} points on the same ${main.prompts} prompts, 95 % interval ${between(main.low, main.high, points)}, p ${main.p_value < 0.001 ? "" : "= "}${chance(main.p_value)}. ` +
      (main.is_significant ? "" : `No difference is shown; this sample could have shown one of ${number(100 * main.smallest)} points.`);
  } else if (score) {
    said = `${shortName(score.model)} keeps ${percent(score.value)} of ${task}'s prompts`;
    byId("subline").textContent = `95 % interval ${between(score.low, score.high)}, over ${score.prompts} prompts.`;
  }
  byId("headline").textContent = said;
  if (said !== "Instruction adherence") document.title = `${said} · Instruction adherence`;
  const server = report.server || {}, run = report.run || {};
  const weights = !server.weights || server.weights === "stored" ? "" : `, ${server.weights} weights`;
  const facts = [server.model, server.dtype && `${server.dtype}${weights}, ${server.device}`, ...report.models.map(shortName), run.seconds !== undefined && `${number(run.seconds, 0)} s`, report.created].filter(Boolean);
  byId("facts").append(...facts.map((fact) => element("li", {}, fact)));
}
function showScores() {
  for (const [task, column] of mainJudges) {
    const card = element("div", { class: "card" }, element("h3", {}, task, " ", element("span", { class: "judge" }, column)));
    for (const model of report.models) {
      const s = scoreOf("prompt", model, task, column), c = covered.get(model + "\n" + task);
      if (!s) continue;
      const missing = c.asked - c.answered;
      card.append(element("div", { class: "score" }, element("span", { class: "name" }, named(model)), element("span", { class: "value" }, percent(s.value)), intervalPlot(s),
        element("span", { class: "range" }, `95 %: ${between(s.low, s.high)} · ${s.prompts} prompts` + (missing ? ` · ${missing} of ${c.asked} not answered` : "") + (c.empty ? ` · ${c.empty} empty` : "") + (c.cut ? ` · ${c.cut} cut` : ""))));
    }
    byId("score-cards").append(card);
  }
  const rows = report.scores.filter((s) => s.level === "prompt").map((s) => {
    const kept = scoreOf("constraint", s.model, s.task, s.column), c = covered.get(s.model + "\n" + s.task);
    return [s.task, named(s.model), s.column, percent(s.value), between(s.low, s.high), percent(kept.value), between(kept.low, kept.high), `${c.answered}/${c.asked}`, String(c.empty), String(c.cut)];
  });
  if (rows.length) byId("score-table").append(table("Scores", ["task", "model", "judged by", "prompts kept", "95 %", "constraints kept", "95 %", "answered", "empty", "cut"], rows));
  if (report.texts.length) byId("score-table").append(table("Texts", ["task", "model", "perplexity of tokens", "of bytes", "bits a byte", "tokens"], report.texts.map((t) => [t.task, named(t.model), number(t.token_perplexity, 3), number(t.byte_perplexity, 3), number(t.bits_per_byte, 4), String(t.tokens)])));
}
function showComparisons() {
  byId("comparisons").hidden = !report.comparisons.length;
  if (!report.comparisons.length) return;
  const reach = Math.max(0.05, ...report.comparisons.map((c) => Math.max(Math.abs(c.low), Math.abs(c.high)))) * 1.08;
  byId("comparison-plot").append(bars("Differences", scale(420, [[0, points(-reach)], [0.5, "0"], [1, points(reach)]]), report.comparisons.map((c) => [
    [`${c.task}, ${c.column}`, element("small", {}, `${shortName(c.second)} ${MINUS} ${shortName(c.first)}`)], differencePlot(c, reach),
    [...verdictWords(c), element("div", { class: "dim" }, `95 %: ${between(c.low, c.high, points)}`)]])));
  byId("comparison-table").append(element("p", { class: "dim" }, "Won: prompts that only the second model keeps; lost: that only the first keeps; could show: the smallest difference found in four of five such samples; left out: prompts that one of the two did not answer."), table("Comparisons", ["task", "judged by", "difference", "95 %", "won", "lost", "p", "could show", "prompts", "left out"],
    report.comparisons.map((c) => [c.task, c.column, points(c.difference), between(c.low, c.high, points), String(c.gained), String(c.lost), chance(c.p_value), number(100 * c.smallest), String(c.prompts), String(c.left_out)])));
}
const familyComparison = (task, column, family, model) => (report.family_comparisons || []).find((c) => c.task === task && c.column === column && c.family === family && c.second === model);
function showFamilies() {
  const [task, column] = judges[Number(byId("family-judge").value) || 0] || [];
  const own = report.scores.filter((s) => s.level === "family" && s.task === task && s.column === column);
  const last = report.models[report.models.length - 1];
  const rows = [...new Set(own.map((s) => s.family))].map((family) => {
    const scores = report.models.map((model) => own.find((s) => s.model === model && s.family === family)).filter(Boolean);
    return { family, scores, compared: report.models.map((model) => familyComparison(task, column, family, model)).filter(Boolean), change: familyComparison(task, column, family, last)?.difference ?? 0 };
  });
  const orders = { name: (a, b) => (a.family < b.family ? -1 : 1), low: (a, b) => a.scores[a.scores.length - 1].value - b.scores[b.scores.length - 1].value, change: (a, b) => b.change - a.change };
  rows.sort(orders[byId("family-order").value] || orders.name);
  byId("family-plot").replaceChildren(legend(), bars("By constraint", scale(420, SHARES), rows.map(({ family, scores, compared }) => [
    [family, element("small", {}, `${scores[0].prompts} prompts`)], dumbbell(scores),
    [scores.map((s) => percent(s.value)).join(" → "), ...compared.map((c) => element("div", {}, ...verdictWords(c)))]])));
  byId("family-table").replaceChildren(table("By constraint", ["constraint", "model", "kept", "95 %", "prompts", "difference", "95 %", "p", "p, of all constraints together"], rows.flatMap(({ family, scores }) => scores.map((s) => {
    const c = familyComparison(task, column, family, s.model);
    return [family, named(s.model), percent(s.value), between(s.low, s.high), String(s.prompts), c ? points(c.difference) : "", c ? between(c.low, c.high, points) : "", c ? chance(c.p_value) : "", c ? chance(c.q_value) : ""];
  }))));
}
function groups(found) {
  const made = new Map();
  for (const one of found || []) { const key = one.task + "\n" + one.column; made.set(key, [...(made.get(key) || []), one]); }
  return [...made.values()];
}
function showBreakdowns() {
  const place = byId("breakdown-list");
  for (const own of groups(report.curves)) {
    const lines = report.models.map((model) => ({ model, points: own.filter((p) => p.model === model).map((p) => ({ x: p.constraints, y: p.kept, low: p.low, high: p.high })) })).filter((l) => l.points.length);
    place.append(element("h3", {}, `${own[0].task}: constraints kept, by how many a prompt has`), legend(), element("div", { class: "plot card" }, curvePlot("Share of constraints kept by number of constraints", "constraints in the prompt", lines)),
      element("details", { class: "more" }, element("summary", {}, "The same as a table"), table("Curve", ["constraints", "model", "kept", "95 %", "prompts kept whole", "prompts"], own.map((p) => [String(p.constraints), named(p.model), percent(p.kept), between(p.low, p.high), percent(p.whole), String(p.prompts)]))));
  }
  for (const own of groups(report.reliability)) place.append(element("h3", {}, `${own[0].task}: every rewording of a prompt kept (reliable@${own[0].k})`), table("Reliability", ["model", "judged by", `reliable@${own[0].k}`, "95 %", "the prompt as it was", "mean of rewordings", "prompts", "left out"], own.map((r) => [named(r.model), r.column, percent(r.value), between(r.low, r.high), percent(r.single), percent(r.mean), String(r.groups), String(r.left_out)])));
  for (const own of groups(report.turns)) place.append(element("h3", {}, `${own[0].task}: by turn`), table("Turns", ["turn", "model", "judged by", "kept whole", "95 %", "constraints kept", "prompts"], own.map((t) => [String(t.turn), named(t.model), t.column, percent(t.value), between(t.low, t.high), percent(t.kept), String(t.prompts)])));
  for (const own of groups(report.parts)) place.append(element("h3", {}, `${own[0].task}, ${own[0].column}: what the adapter was trained on, and what not`), table("Parts", ["part", "model", "kept whole", "95 %", "constraints kept", "prompts", "difference", "95 %", "p"], own.map((p) => {
    const c = (report.part_comparisons || []).find((o) => o.adapter === p.adapter && o.part === p.part && o.task === p.task && o.column === p.column && o.second === p.model);
    return [p.part, named(p.model), percent(p.value), between(p.low, p.high), percent(p.kept), String(p.prompts), c ? points(c.difference) : "", c ? between(c.low, c.high, points) : "", c ? chance(c.p_value) : ""];
  })));
  for (const own of groups(report.forgetting)) place.append(element("h3", {}, `${own[0].task}, ${own[0].column}: what was forgotten`), table("Forgetting", ["model", "kept by the first model", "of these lost", "share lost", "95 %", "gained", "p"], own.map((f) => [named(f.adapter), String(f.kept), String(f.lost), percent(f.share), between(f.low, f.high), String(f.gained), chance(f.p_value)])));
  if ((report.text_changes || []).length) place.append(element("h3", {}, "Texts, before and after"), table("Texts, before and after", ["task", "model", "bits a byte of the first model", "of this model"], report.text_changes.map((t) => [t.task, named(t.adapter), number(t.before, 4), number(t.after, 4)])));
  for (const note of report.notes || []) place.append(element("p", { class: "dim" }, note));
  byId("breakdowns").hidden = !place.childElementCount;
}
function showCost() {
  const rows = report.coverage.map((c) => {
    const [task, column] = judges.find(([name]) => name === c.task) || [], score = task && scoreOf("prompt", c.model, task, column), each = Math.max(1, c.answered);
    return [c.task, named(c.model), score ? percent(score.value) : "", number(c.prompt_tokens / each), number(c.generated_tokens / each), number(Math.max(0, c.drawn_tokens - c.generated_tokens) / each), number(c.seconds / each, 2) + " s", String(c.generated_tokens)];
  });
  byId("cost-table").append(table("Cost", ["task", "model", "prompts kept", "tokens a prompt", "tokens an answer", "hidden tokens an answer", "time an answer", "tokens of all answers"], rows));
}
function showAbout() {
  const server = report.server || {}, run = report.run || {};
  byId("about").textContent = ["Made by ift-serve", server.version, report.models.join(", ")].filter(Boolean).join(" · ");
  const shown = { ...Object.fromEntries(Object.entries(server).map(([k, v]) => [`server ${k}`, v])), ...report.settings, ...Object.fromEntries(Object.entries(run).map(([k, v]) => [`run ${k}`, v])) };
  for (const [name, value] of Object.entries(shown)) byId("settings").append(element("dt", {}, name), element("dd", {}, typeof value === "string" ? value : JSON.stringify(value)));
}
