const PARTS = ["instruction", "context", "response"];
let current = null;
let editing = false;

/** A text with the places marked that reasons point at; places count characters, not units of UTF-16. */
function marked(text, spans) {
  const box = element("div", "", { class: "text", tabindex: "0" });
  const characters = Array.from(text);
  let place = 0;
  for (const [start, end] of spans.filter(([a, b]) => a < b).sort((a, b) => a[0] - b[0])) {
    if (start < place) continue;
    box.append(characters.slice(place, start).join(""));
    box.append(element("mark", characters.slice(start, end).join("")));
    place = end;
  }
  box.append(characters.slice(place).join(""));
  return box;
}

/** Everything that the server says: the record, how far the review is, reasons to choose from, agreement. */
function show(state) {
  current = state.assignment;
  editing = false;
  $("who").textContent = `You are ${state.reviewer}.`;
  const { waiting, decided, own } = state.progress;
  $("done").max = Math.max(1, waiting + decided);
  $("done").value = decided;
  $("done-text").textContent = `${decided} of ${waiting + decided} decided, ${own} by you`;
  showChoices(state.reasons);
  showAgreement(state.agreement);
  $("record").hidden = current === null;
  $("empty").hidden = current !== null;
  $("undo").disabled = false;
  if (current !== null) showRecord();
  else $("empty").after($("undo"));
  if (current !== null) $("buttons").append($("undo"));
}

function showChoices(reasons) {
  const chosen = $("reason").value;
  const options = Object.entries(reasons).map(([name, count]) => element("option", `${name} (${count})`, { value: name }));
  if (chosen && !(chosen in reasons)) options.push(element("option", `${chosen} (0)`, { value: chosen }));
  $("reason").replaceChildren(element("option", "all reasons", { value: "" }), ...options);
  $("reason").value = chosen;
}

function showAgreement(pairs) {
  $("agreement").hidden = pairs.length === 0;
  $("no-agreement").hidden = pairs.length > 0;
  $("agreement").tBodies[0].replaceChildren(...pairs.map((pair) => {
    const row = element("tr");
    const share = `${pair.agreed} of ${pair.records} (${Math.round(100 * pair.agreed / pair.records)} %)`;
    const kappa = pair.kappa === null ? "not defined" : pair.kappa.toFixed(2);
    row.append(element("th", `${pair.first}, ${pair.second}`, { scope: "row" }));
    row.append(element("td", String(pair.records)), element("td", share), element("td", kappa));
    return row;
  }));
}

function showRecord() {
  const rounds = { 2: " It is a second opinion: nobody's decision changes.", 3: ` Two reviewers disagree (${current.earlier.join(", ")}): your decision counts.` };
  $("about").textContent = `Record ${current.id}, made by ${current.step}.${rounds[current.round] ?? ""}`;
  $("reasons").replaceChildren(...current.reasons.map((reason) => {
    const score = reason.score === null ? "" : ` (${reason.score}${reason.threshold === null ? "" : `, threshold ${reason.threshold}`})`;
    return element("li", `${reason.name}: ${reason.message}${score}`);
  }));
  const parts = current.history.map((turn) => [turn.role, turn.content, []]);
  parts.push(["instruction", current.instruction, []]);
  if (current.context) parts.push(["context", current.context, []]);
  parts.push(["response", current.response, current.spans]);
  $("shown").replaceChildren(...parts.flatMap(([name, text, spans]) => {
    const box = marked(text, spans);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", name);
    return [element("h3", name), box];
  }));
  if (current.draft !== null) edit(current.draft); else leave();
}

/** The parts of the record in boxes that can be written in; what is written is kept with the server at once. */
function edit(values) {
  editing = true;
  $("edit").replaceChildren(...PARTS.map((name) => {
    const label = element("label", name);
    const box = element("textarea", "", { name, rows: String(Math.min(14, 2 + Math.ceil(values[name].length / 70))) });
    box.value = values[name];
    label.append(box);
    return label;
  }));
  for (const [id, hidden] of [["edit", false], ["saving", false], ["shown", true], ["buttons", true]]) $(id).hidden = hidden;
  $("edit").elements.response.focus();
}

function leave() {
  editing = false;
  for (const [id, hidden] of [["edit", true], ["saving", true], ["shown", false], ["buttons", false]]) $(id).hidden = hidden;
}

function written() {
  return Object.fromEntries(PARTS.map((name) => [name, $("edit").elements[name].value]));
}
