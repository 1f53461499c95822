const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "n", "seed", "repetition_penalty"];
const SHAPES = { vote: "samples", best_of: "samples", branch: "width" };

const field = (name) => $("settings").elements.namedItem(name);
const given = (name) => field(name).value.trim();
const fieldNames = () => [...$("settings").elements].map((one) => one.name).filter(Boolean);

/** Everything that is set, by the name of its field, as it is kept. */
function settings() {
  return Object.fromEntries(fieldNames().map((name) => [name, field(name).value]).filter(([, value]) => value !== ""));
}

function restoreSettings(kept) {
  for (const name of fieldNames()) field(name).value = typeof kept[name] === "string" ? kept[name] : "";
}

class Unfit extends Error {}

function number(name) {
  const value = Number(given(name));
  if (!Number.isFinite(value) || field(name).validity.badInput) throw new Unfit(`${name} is not a number`);
  return value;
}

function reasoning() {
  const kind = given("reasoning");
  if (kind === "") return {};
  const own = {};
  if (given("width") !== "" && SHAPES[kind]) own[SHAPES[kind]] = number("width");
  if (kind === "trace" && given("budget") !== "") own.budget = number("budget");
  if (["vote", "best_of", "auto"].includes(kind) && given("budget") !== "") own.trace = { budget: number("budget") };
  return { reasoning: { [kind]: own } };
}

function form() {
  const kind = given("form"), text = given("form_text");
  if (kind === "") return {};
  if (kind === "json_object") return { response_format: { type: kind } };
  if (kind !== "json_schema") return { [kind]: text };
  try {
    return { response_format: { type: kind, json_schema: { name: "answer", schema: JSON.parse(text) } } };
  } catch {
    throw new Unfit("the schema is not JSON");
  }
}

/** The fields of a request that do not depend on the model or the conversation. Throws Unfit. */
function sharedFields() {
  const found = {};
  for (const name of NUMBERS) if (given(name) !== "") found[name] = number(name);
  const stop = field("stop").value.split("\n").filter((line) => line !== "");
  if (stop.length) found.stop = stop;
  if (given("adaptive") !== "") found.adaptive = { rule: given("adaptive") };
  return { ...found, ...reasoning(), ...form() };
}

/** A request of one model. */
function body(model, messages, context, shared) {
  return { model, messages, ...(context ? { context } : {}), ...shared };
}
