/** A number as people read it. */
const shown = (value, digits = 3) => (typeof value === "number" ? String(Number(value.toFixed(digits))) : "–");

/** What a colour says: the value of a token, where the scale ends, and how it is written. */
const MEASURES = {
  probability: { of: (token) => (token.logprob === null ? null : 1 - Math.exp(token.logprob)), most: 1, told: "Darker: less probable (at temperature 1), from 1 to 0." },
  entropy: { of: (token) => token.entropy ?? null, most: 4, told: "Darker: more entropy, from 0 to 4 nats and above." },
  temperature: { of: (token) => token.temperature ?? null, most: 1.5, told: "Darker: drawn at a higher temperature, from 0 to 1.5 and above." },
};
const known = new WeakMap();

function heat(token) {
  const measure = MEASURES[$("colour").value];
  const value = measure ? measure.of(token) : null;
  return value === null ? 0 : Math.min(8, Math.round((8 * value) / measure.most));
}

function paint(span) {
  const token = known.get(span);
  const level = heat(token);
  span.className = `token${token.forced ? " forced" : ""}${token.cut ? " cut" : ""}${level ? ` heat-${level}` : ""}`;
}

function repaint() {
  const measure = MEASURES[$("colour").value];
  $("legend").hidden = !measure;
  $("legend").textContent = measure ? measure.told : "";
  document.querySelectorAll(".token").forEach(paint);
}

/** A text of tokens: one stop of the tab key, arrows go from token to token. */
function tokenText(label, className = "text") {
  return element("div", "", { class: className, role: "group", "aria-label": label });
}

function addToken(box, token) {
  const span = element("span", token.text);
  span.tabIndex = box.querySelector(".token") ? -1 : 0;
  known.set(span, token);
  paint(span);
  box.append(span);
}

function move(from, step) {
  const all = [...from.parentElement.querySelectorAll(".token")];
  const place = step === "Home" ? 0 : step === "End" ? all.length - 1 : all.indexOf(from) + (step === "ArrowRight" ? 1 : -1);
  const to = all[place];
  if (!to) return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

const visible = (text) => (text === "" ? "(part of a character)" : JSON.stringify(text));

/** What is known of a token, and what could have been drawn in its place. */
function showToken(span) {
  const token = known.get(span), card = $("token-card");
  const facts = [
    token.logprob === null ? "put in its place, not drawn" : `probability ${shown(Math.exp(token.logprob), 4)}`,
    `entropy ${shown(token.entropy)}`, `temperature ${shown(token.temperature)}`, `channel ${token.channel}`,
  ];
  card.replaceChildren(element("p", `Token ${visible(token.text)}: ${facts.join(", ")}.`));
  if (token.alternatives?.length) {
    const list = element("ul", "", { class: "others", "aria-label": "Could have been" });
    list.append(...token.alternatives.map((one) => element("li", `${visible(one.text)} ${shown(Math.exp(one.logprob), 4)}`)));
    card.append(element("p", "Could have been:", { class: "dim" }), list);
  }
  card.hidden = false;
  const facing = span.getAttribute("aria-describedby");
  if (facing !== "token-card") span.setAttribute("aria-describedby", "token-card");
}

/** Scroll until the card does not cover the token that has the focus. */
function uncover(span) {
  const card = $("token-card").getBoundingClientRect(), own = span.getBoundingClientRect();
  if (own.bottom > card.top && own.top < card.bottom) scrollBy(0, own.bottom - card.top + 8);
}

$("turns").addEventListener("keydown", (event) => {
  if (!known.has(event.target) || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
  event.preventDefault();
  move(event.target, event.key);
});
for (const kind of ["focusin", "mouseover"]) $("turns").addEventListener(kind, (event) => { if (known.has(event.target)) showToken(event.target); });
$("turns").addEventListener("focusin", (event) => { if (known.has(event.target)) uncover(event.target); });
$("colour").addEventListener("change", repaint);
