"use strict";
const $ = (id) => document.getElementById(id);

/** An element with text in it: whatever a record holds, it is never markup. */
function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

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
