"use strict";
const $ = (id) => document.getElementById(id);

/** An element with text in it: whatever a model writes, it is never markup. */
function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A number as people read it. */
const shown = (value, digits = 3) => (typeof value === "number" ? String(Number(value.toFixed(digits))) : "–");
