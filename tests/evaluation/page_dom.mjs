// Runs the script of a report page on a small stand-in for a browser's document, and prints what it shows.
import { readFileSync } from "node:fs";

const page = readFileSync(process.argv[2], "utf8");
const data = page.match(/<script id="report" type="application\/json">([\s\S]*?)<\/script>/)[1];
const code = page.match(/<script>\n([\s\S]*?)<\/script>/)[1];

class Node_ {
  constructor(name) { this.name = name; this.children = []; this.values = {}; this.listeners = {}; this.hidden = false; this.value = ""; }
  append(...nodes) { this.children.push(...nodes.map((n) => (typeof n === "object" ? n : String(n)))); }
  replaceChildren(...nodes) { this.children = []; this.append(...nodes); if (this.name === "select") this.value = this.children[0]?.values.value ?? ""; }
  setAttribute(key, value) { this.values[key] = String(value); }
  addEventListener(kind, run) { this.listeners[kind] = run; }
  set textContent(text) { this.children = [text]; }
  get textContent() { return this.children.map((c) => (typeof c === "string" ? c : c.textContent)).join(""); }
  all(name) { return this.children.flatMap((c) => (typeof c === "string" ? [] : [...(c.name === name ? [c] : []), ...c.all(name)])); }
}
const byId = new Map();
for (const [, name, id] of page.matchAll(/<(\w+)[^>]*? id="([\w-]+)"/g)) byId.set(id, new Node_(name));
byId.get("report").textContent = data;
globalThis.document = {
  getElementById: (id) => byId.get(id),
  createElement: (name) => new Node_(name),
  createElementNS: (_, name) => new Node_(name),
};
new Function(code)();
const said = () => ({
  count: byId.get("count").textContent,
  articles: byId.get("list").all("article").length,
  marks: byId.get("list").all("mark").map((m) => m.textContent),
});
const result = { first: said(), scores: byId.get("scores").all("tr").length, pairs: byId.get("pairs").textContent, families: byId.get("families").all("tr").length };
byId.get("f-outcome").value = process.argv[3] ?? "differ";
byId.get("filter").listeners.input();
result.filtered = said();
byId.get("f-outcome").value = "";
byId.get("f-text").value = "no such text anywhere";
byId.get("filter").listeners.input();
result.none = said();
console.log(JSON.stringify(result));
