/** Answers to one prompt as a tree of their tokens: what they share is one node. It grows while they come. */
function tokenTree(paths) {
  const root = { children: new Map(), text: "", ends: [] };
  paths.forEach((path, index) => {
    let node = root;
    for (const token of path) {
      if (!node.children.has(token.id)) node.children.set(token.id, { children: new Map(), text: token.text, ends: [] });
      node = node.children.get(token.id);
    }
    node.ends.push(index);
  });
  return root;
}

function branchList(node, states) {
  const list = element("ul");
  for (const first of node.children.values()) {
    let text = first.text, last = first;
    while (last.children.size === 1 && !last.ends.length) {
      last = [...last.children.values()][0];
      text += last.text;
    }
    const item = element("li");
    item.append(element("span", text, { class: "piece" }));
    for (const index of last.ends) item.append(element("span", ` [answer ${index + 1}${states[index] ? `: ${states[index]}` : " …"}]`, { class: "dim" }));
    if (last.children.size) item.append(branchList(last, states));
    list.append(item);
  }
  return list;
}

function showTokenTree(box, paths, states) {
  const list = branchList(tokenTree(paths), states);
  list.classList.add("tree");
  box.replaceChildren(element("h3", `${paths.length} answers`), list);
}

/** What a strategy compared: answers, and under each the sequences that gave it. The server tells it with the end. */
function showConclusion(box, conclusion) {
  const groups = new Map();
  (conclusion.branches ?? []).forEach((branch, index) => {
    if (!groups.has(branch.answer)) groups.set(branch.answer, []);
    groups.get(branch.answer).push([index, branch]);
  });
  const list = element("ul", "", { class: "tree" });
  for (const [answer, branches] of groups) {
    const votes = branches.reduce((sum, [, branch]) => sum + branch.votes, 0);
    const chosen = branches.some(([, branch]) => branch.chosen);
    const item = element("li");
    const text = answer === "" ? "no answer found" : answer;
    item.append(element("span", `${text}${conclusion.mode === "vote" ? `: ${shown(votes, 2)} votes` : ""}${chosen ? " (chosen)" : ""}`, chosen ? { class: "chosen" } : {}));
    const inner = element("ul");
    for (const [index, branch] of branches) {
      inner.append(element("li", `sequence ${index + 1}: confidence ${shown(branch.confidence)}, ${branch.tokens} tokens, ${branch.finish_reason || "still running at the end"}${branch.chosen ? " (chosen)" : ""}`));
    }
    item.append(inner);
    list.append(item);
  }
  box.replaceChildren(element("h3", `${conclusion.mode}: ${groups.size ? `what ${conclusion.branches.length} sequences gave` : "nothing was compared"}`));
  if (groups.size) box.append(list);
}
