const DRAFT_MILLISECONDS = 250;
let waiting = false;
let draftTimer = null;

/** One call at a time: a key that is held down decides about one record. */
async function act(work, said = "") {
  if (waiting) return;
  waiting = true;
  $("wrong").textContent = "";
  try {
    const state = await work();
    if (state) {
      show(state);
      $("main").focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    $("said").textContent = said;
  } catch (error) {
    $("said").textContent = "";
    $("wrong").textContent = error instanceof Refused ? error.message : "The server does not answer. Nothing is lost; reload when it runs again.";
    if (error instanceof Refused && error.status === 409) {
      try { show(await call("current", asked())); } catch { /* the message above stays */ }
    }
  } finally {
    waiting = false;
  }
}

const asked = () => ({ reason: $("reason").value });

function decide(choice, edited = null) {
  if (current === null) return;
  clearTimeout(draftTimer);
  const said = { accept: "Accepted.", edit: "Saved and accepted.", reject: "Rejected." }[choice];
  act(() => call("decide", { ...asked(), record: current.id, choice, edited }), said);
}

function undo() {
  act(async () => {
    const state = await call("undo", asked());
    if (state.undone !== null) $("reason").value = "";
    return state;
  }, "Undone.");
}

function beginEdit() {
  if (current === null || editing) return;
  edit({ instruction: current.instruction, context: current.context, response: current.response });
}

async function leaveEdit() {
  if (!editing) return;
  clearTimeout(draftTimer);
  await act(async () => { await call("draft", { record: current.id, edited: null }); current.draft = null; });
  leave();
  $("change").focus();
}

function keepDraft(keepalive = false) {
  clearTimeout(draftTimer);
  draftTimer = null;
  if (!editing || current === null) return;
  call("draft", { record: current.id, edited: written() }, keepalive).catch((error) => {
    $("wrong").textContent = error instanceof Refused ? error.message : "The server does not answer: what you write is not kept.";
  });
}

$("accept").addEventListener("click", () => decide("accept"));
$("reject").addEventListener("click", () => decide("reject"));
$("change").addEventListener("click", beginEdit);
$("save").addEventListener("click", () => decide("edit", written()));
$("leave").addEventListener("click", leaveEdit);
$("undo").addEventListener("click", undo);
$("edit").addEventListener("submit", (event) => event.preventDefault());
$("edit").addEventListener("input", () => {
  clearTimeout(draftTimer);
  draftTimer = setTimeout(keepDraft, DRAFT_MILLISECONDS);
});
addEventListener("pagehide", () => { if (draftTimer !== null) keepDraft(true); });
$("reason").addEventListener("change", () => act(() => call("current", asked())));

document.addEventListener("keydown", (event) => {
  if (editing) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); decide("edit", written()); }
    if (event.key === "Escape") { event.preventDefault(); leaveEdit(); }
    return;
  }
  const typing = event.target instanceof Element && event.target.matches("input:not([type=checkbox]), select, textarea");
  if (typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !$("keys").checked) return;
  const work = { a: () => decide("accept"), e: beginEdit, r: () => decide("reject"), u: undo }[event.key.toLowerCase()];
  if (work) { event.preventDefault(); work(); }
});

act(() => call("current", asked()));
