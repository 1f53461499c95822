class Refused extends Error {}

function headers() {
  const token = $("token").value.trim();
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function refusal(answer) {
  let message = `status ${answer.status}`;
  try { message = (await answer.json()).error.message; } catch { /* the status is all there is */ }
  return new Refused(message);
}

async function servedModels() {
  const answer = await fetch("v1/models", { headers: headers(), cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  return (await answer.json()).data;
}

/** The chunks of a streamed answer, as they come. */
async function* chunks(request, signal) {
  const asked = { ...request, stream: true, stream_options: { include_usage: true }, logprobs: true, top_logprobs: 8, token_details: true };
  const answer = await fetch("v1/chat/completions", { method: "POST", headers: headers(), cache: "no-store", body: JSON.stringify(asked), signal });
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Refused("the stream broke off");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      if (event === "data: [DONE]") return;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new Refused(chunk.error.message);
      yield chunk;
    }
  }
}
