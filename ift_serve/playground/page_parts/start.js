let base = "";
let running = null;

const boxes = () => [...$("models").querySelectorAll("input")];

function chosenModels() {
  const named = $("other-models").value.split(",").map((name) => name.trim()).filter(Boolean);
  return [...new Set([...boxes().filter((box) => box.checked).map((box) => box.value), ...named])];
}

function checkModels(names) {
  if (!names.length) return;
  const listed = boxes().map((box) => box.value);
  for (const box of boxes()) box.checked = names.includes(box.value);
  $("other-models").value = names.filter((name) => !listed.includes(name)).join(", ");
}

async function findModels() {
  $("wrong").textContent = "";
  try {
    const models = await servedModels();
    base = models[0].id;
    const chosen = chosenModels();
    $("models").replaceChildren(...models.map((model, place) => {
      const label = element("label", "", { class: "check" });
      const box = element("input", "", { type: "checkbox", value: model.id });
      box.checked = chosen.length ? chosen.includes(model.id) : place === 0;
      label.append(box, element("span", place ? `${model.id} (adapter)` : `${model.id} (base)`));
      return label;
    }));
    $("about").textContent = `${base}, a context of ${models[0].ift.context_length} tokens, and ${models.length - 1} adapters to see.`;
    checkModels(current?.models?.length ? current.models : chosen);
    showCommand();
  } catch (error) {
    $("about").textContent = "The models are not known.";
    $("wrong").textContent = error instanceof Refused ? error.message : "The gateway does not answer.";
  }
}

/** The conversation as a model has it: its own answers, or where it gave none those of another. */
function messagesFor(model, turns, prompt) {
  const found = given("system") ? [{ role: "system", content: field("system").value }] : [];
  for (const turn of turns) {
    const answers = turn.answers.filter((answer) => answer.text);
    const own = answers.find((answer) => answer.model === model) ?? answers[0];
    if (!own) continue;
    found.push({ role: "user", content: turn.context ? `${turn.prompt}\n\n${turn.context}` : turn.prompt }, { role: "assistant", content: own.text });
  }
  return [...found, { role: "user", content: prompt }];
}

function requestFor(model, prompt, context, shared) {
  return body(model, messagesFor(model, current.turns, prompt), context, shared);
}

function showCommand() {
  try {
    const model = chosenModels()[0] ?? base;
    const request = requestFor(model, $("prompt").value || $("prompt").placeholder, $("context").value, sharedFields());
    $("command").textContent = command($("command-kind").value, request, base);
  } catch (error) {
    $("command").textContent = error instanceof Unfit ? error.message : String(error);
  }
}

function busy(is) {
  $("send").disabled = is;
  $("stop").hidden = !is;
}

async function send() {
  const prompt = $("prompt").value, context = $("context").value, models = chosenModels();
  if (running || !prompt.trim()) return;
  $("wrong").textContent = "";
  let shared;
  try {
    if (!models.length) throw new Unfit("choose a model");
    shared = sharedFields();
  } catch (error) {
    $("wrong").textContent = error.message;
    return;
  }
  running = new AbortController();
  busy(true);
  $("said").textContent = `${models.length === 1 ? "One model is" : `${models.length} models are`} asked.`;
  const requests = models.map((model) => requestFor(model, prompt, context, shared));
  const cards = requests.map((request) => new AnswerCard(request.model, request));
  const turn = { prompt, context, answers: cards.map((card) => card.answer) };
  showTurn(turn, cards);
  if (!conversations.includes(current)) conversations.unshift(current);
  Object.assign(current, { settings: settings(), models });
  current.turns.push(turn);
  $("prompt").value = $("context").value = "";
  listConversations();
  await Promise.all(cards.map((card, place) => ask(card, requests[place], running.signal)));
  running = null;
  busy(false);
  keep();
  showCommand();
  const failed = cards.filter((card) => card.answer.failed).length;
  $("said").textContent = failed ? `${failed} of ${cards.length} answers failed.` : cards.length === 1 ? "The answer is complete." : "The answers are complete.";
  $("prompt").focus();
}

function begin() {
  if (running) return;
  const kept = settings();
  current = { ...fresh(), settings: kept, models: chosenModels() };
  $("turns").replaceChildren();
  $("token-card").hidden = true;
  listConversations();
  showCommand();
  $("prompt").focus();
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", begin);
$("forget").addEventListener("click", () => { if (running) return; conversations = []; keep(); begin(); });
$("token").addEventListener("change", findModels);
for (const id of ["settings", "ask"]) $(id).addEventListener("input", showCommand);
$("command-kind").addEventListener("change", showCommand);
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("command").textContent);
    $("said").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("command"));
    $("said").textContent = "Selected; copy it with the keyboard.";
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
  if (event.key === "Escape") { if (running) running.abort(); else $("token-card").hidden = true; }
});
addEventListener("pagehide", () => { if (running) keep(); });

load();
current = conversations[0] ?? fresh();
openConversation(current);
findModels();
