const COMPARING = ["branch", "vote", "best_of"];

/** A model's answer on the page. ``answer``: what is kept of it. */
class AnswerCard {
  constructor(model, request) {
    this.answer = { model, text: "", reasoning: "", finish: "", failed: "", usage: null, conclusion: null, more: [] };
    this.paths = [];
    this.states = [];
    this.box = element("article", "", { class: "card", "aria-label": `Answer of ${model}` });
    this.thought = element("details", "", { hidden: "" });
    this.thoughtText = tokenText(`Thought of ${model}`, "text thought");
    this.thought.append(element("summary", "Thought"), this.thoughtText);
    this.text = tokenText(`Answer of ${model}`);
    this.tree = element("div", "", { class: "branches" });
    this.state = element("p", "waits", { class: "dim" });
    const kind = request ? Object.keys(request.reasoning ?? {})[0] : "";
    if (COMPARING.includes(kind)) this.tree.append(element("p", "The server tells what it compared once it has decided.", { class: "dim" }));
    this.box.append(element("h3", model), this.thought, this.text, this.tree, this.state);
  }

  take(chunk) {
    for (const choice of chunk.choices) {
      const path = (this.paths[choice.index] ??= []);
      for (const token of choice.ift?.tokens ?? []) {
        if (!token.end) path.push(token);
        if (choice.index === 0 && !token.end && token.channel !== "marker") this.show(token);
      }
      if (choice.index === 0) {
        this.answer.text += choice.delta.content ?? "";
        this.answer.reasoning += choice.delta.reasoning_content ?? "";
      } else {
        this.answer.more[choice.index - 1] = (this.answer.more[choice.index - 1] ?? "") + (choice.delta.content ?? "");
      }
      if (choice.finish_reason) this.end(choice);
    }
    if (chunk.usage) this.answer.usage = { ...chunk.usage, ...chunk.ift?.usage };
    if (chunk.ift?.conclusion) this.answer.conclusion = chunk.ift.conclusion;
    this.drawSoon();
  }

  show(token) {
    const isThought = token.channel === "reasoning";
    if (isThought && this.thought.hidden) { this.thought.hidden = false; this.thought.open = true; }
    addToken(isThought ? this.thoughtText : this.text, token);
    this.state.textContent = "writes";
  }

  /** Tokens behind the end of the text are those of a stop string. */
  end(choice) {
    this.states[choice.index] = choice.ift?.finish_reason ?? choice.finish_reason;
    if (choice.index !== 0) return;
    this.answer.finish = this.states[0];
    let rest = this.answer.text.length;
    for (const span of this.text.querySelectorAll(".token")) {
      if (rest <= 0 && span.textContent) { known.get(span).cut = true; paint(span); }
      rest -= span.textContent.length;
    }
  }

  /** The tree is drawn again at most once a frame. */
  drawSoon() {
    if (this.drawing || this.paths.length < 2) return;
    this.drawing = true;
    requestAnimationFrame(() => { this.drawing = false; showTokenTree(this.tree, this.paths.map((path) => path ?? []), this.states); });
  }

  settle() {
    const { usage, conclusion, finish, failed } = this.answer;
    if (!this.text.querySelector(".token")) this.text.textContent = this.answer.text;
    if (this.answer.reasoning && !this.thoughtText.querySelector(".token")) { this.thoughtText.textContent = this.answer.reasoning; this.thought.hidden = false; }
    if (conclusion?.branches?.length) showConclusion(this.tree, conclusion);
    else if (this.paths.length < 2) this.tree.replaceChildren(...this.answer.more.map((text, index) => element("p", `${index + 2}. ${text}`, { class: "text" })));
    const seconds = usage?.total_seconds ? `, ${shown(usage.total_seconds, 2)} s` : "";
    this.state.className = failed ? "failed" : "dim";
    this.state.textContent = failed || `ended: ${finish || "stopped"}${usage ? `; ${usage.prompt_tokens} + ${usage.completion_tokens} tokens${seconds}` : ""}`;
  }
}

/** Ask one model and show what comes. */
async function ask(card, request, signal) {
  try {
    for await (const chunk of chunks(request, signal)) card.take(chunk);
  } catch (error) {
    if (signal.aborted) card.answer.finish = "stopped";
    else card.answer.failed = error instanceof Refused ? error.message : "The gateway does not answer.";
  }
  card.settle();
}

/** One prompt with its answers side by side. */
function showTurn(turn, cards) {
  const box = element("div", "", { class: "turn" });
  box.append(element("div", turn.prompt, { class: "asked" }));
  if (turn.context) box.append(element("div", turn.context, { class: "asked context" }));
  const answers = element("div", "", { class: "answers" });
  answers.append(...cards.map((card) => card.box));
  box.append(answers);
  $("turns").append(box);
}

/** A turn as it was kept: texts without their tokens. */
function showKept(turn) {
  const cards = turn.answers.map((kept) => {
    const card = new AnswerCard(String(kept.model), null);
    Object.assign(card.answer, kept);
    card.settle();
    return card;
  });
  showTurn(turn, cards);
}
