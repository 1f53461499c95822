"use strict";
const $ = (id) => document.getElementById(id);

/** An element with text in it: whatever it holds, it is never markup. */
function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
