const KEPT = "ift-serve-playground";
const MOST = 30;
let conversations = [];
let current = null;

function fresh() {
  return { id: crypto.randomUUID?.() ?? String(Date.now() + Math.random()), turns: [], settings: {}, models: [] };
}

const isAnswer = (found) => found && typeof found.model === "string" && typeof found.text === "string" && Array.isArray(found.more);
const isTurn = (found) => found && typeof found.prompt === "string" && Array.isArray(found.answers) && found.answers.every(isAnswer);

function isConversation(found) {
  return found && typeof found.id === "string" && Array.isArray(found.turns) && found.turns.every(isTurn);
}

/** What this browser has kept; whatever is not of this page's form is left out. */
function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    conversations = Array.isArray(found) ? found.filter(isConversation) : [];
  } catch {
    conversations = [];
  }
}

/** Keep the newest; where there is no room for them, fewer. */
function keep() {
  conversations = conversations.slice(0, MOST);
  for (let count = conversations.length; count >= 0; count -= 1) {
    try {
      localStorage.setItem(KEPT, JSON.stringify(conversations.slice(0, count)));
      $("history-note").textContent = count < conversations.length ? "This browser has no room for older conversations." : "They are kept in this browser.";
      return;
    } catch { /* once more, without the oldest */ }
  }
  $("history-note").textContent = "This browser keeps nothing; conversations end with the page.";
}

function listConversations() {
  $("conversations").replaceChildren(...conversations.map((one) => {
    const button = element("button", one.turns[0]?.prompt.slice(0, 80) || "(empty)", { type: "button", "aria-current": String(one === current) });
    button.addEventListener("click", () => { if (!running) openConversation(one); });
    const item = element("li");
    item.append(button);
    return item;
  }));
}

function openConversation(conversation) {
  current = conversation;
  restoreSettings(conversation.settings ?? {});
  checkModels(Array.isArray(conversation.models) ? conversation.models : []);
  $("turns").replaceChildren();
  $("token-card").hidden = true;
  for (const turn of conversation.turns) {
    try { showKept(turn); } catch { /* not as this page keeps it */ }
  }
  listConversations();
  showCommand();
}
