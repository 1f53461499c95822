const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A value as Python writes it. */
function python(value, indent = 0) {
  const pad = " ".repeat(indent + 4), end = " ".repeat(indent);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((one) => `${pad}${python(one, indent + 4)},\n`).join("")}${end}]` : "[]";
  if (typeof value === "object") {
    const entries = Object.entries(value).map(([key, one]) => `${pad}${JSON.stringify(key)}: ${python(one, indent + 4)},\n`);
    return entries.length ? `{\n${entries.join("")}${end}}` : "{}";
  }
  return JSON.stringify(value);
}

const OPENAI = ["model", "messages", "temperature", "top_p", "max_tokens", "n", "seed", "stop", "response_format"];

function asPython(request) {
  const own = Object.fromEntries(Object.entries(request).filter(([name]) => !OPENAI.includes(name)));
  const lines = OPENAI.filter((name) => name in request).map((name) => `    ${name}=${python(request[name], 4)},\n`);
  if (Object.keys(own).length) lines.push(`    extra_body=${python(own, 4)},\n`);
  return `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}, api_key=os.environ.get("IFT_SERVE_TOKEN", "none"))\nanswer = client.chat.completions.create(\n${lines.join("")})\nprint(answer.choices[0].message.content)\n`;
}

function asCurl(request) {
  return `curl ${location.origin}/v1/chat/completions \\\n  -H "Authorization: Bearer $IFT_SERVE_TOKEN" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(request, null, 2))}\n`;
}

function conversation(request) {
  const asked = request.messages.map((message) => ({ role: `ROLE_${message.role.toUpperCase()}`, parts: [{ text: message.content }] }));
  if (request.context) asked[asked.length - 1].parts.push({ text: "\n\n" }, { text: request.context, isContext: true });
  return { messages: asked };
}

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

function output(request) {
  const schema = request.response_format?.json_schema?.schema ?? (request.response_format ? { type: "object" } : null);
  if (schema) return { output: { jsonSchema: JSON.stringify(schema) } };
  return request.regex || request.grammar ? { output: request.regex ? { regex: request.regex } : { grammar: request.grammar } } : {};
}

/** What the gateway asks the server, in protobuf's JSON. */
function asBuf(request, base) {
  const sampling = {};
  for (const name of NUMBERS) if (name in request) sampling[name === "max_tokens" ? "maxNewTokens" : camel(name)] = request[name];
  if (request.stop) sampling.stop = request.stop;
  if (request.adaptive) sampling.adaptive = { rule: `TEMPERATURE_RULE_${request.adaptive.rule.toUpperCase()}` };
  const kinds = Object.entries(request.reasoning ?? {}).map(([kind, own]) => [camel(kind), own]);
  const message = {
    prompt: { conversation: conversation(request) },
    ...(Object.keys(sampling).length ? { sampling } : {}),
    ...(kinds.length ? { reasoning: Object.fromEntries(kinds) } : {}),
    ...output(request),
    ...(request.model === base ? {} : { adapter: request.model }),
  };
  const { server, tls } = document.documentElement.dataset;
  const plain = tls === "yes" ? "" : " --http2-prior-knowledge";
  return `buf curl${plain} --protocol grpc \\\n  -H "Authorization: Bearer $IFT_SERVE_TOKEN" \\\n  -d ${quoted(JSON.stringify(message, null, 2))} \\\n  ${tls === "yes" ? "https" : "http"}://${server}/ift_serve.v1.InferenceService/Generate\n`;
}

function command(kind, request, base) {
  return { python: asPython, curl: asCurl, buf: asBuf }[kind](request, base);
}
