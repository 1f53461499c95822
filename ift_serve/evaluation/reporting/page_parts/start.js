// Draw everything, and listen.
showHeadline();
showScores();
showComparisons();
options(byId("family-judge"), judges.map((judge, i) => [String(i), judgeName(judge)]));
options(byId("family-order"), [...(report.models.length > 1 ? [["change", "largest gain first"]] : []), ["low", "lowest first"], ["name", "by name"]]);
byId("families").hidden = !judges.length;
if (judges.length) showFamilies();
showBreakdowns();
showCost();
showAbout();
options(byId("f-judge"), listed.map((judge, i) => [String(i), judgeName(judge)]));
options(byId("f-outcome"), outcomes());
showFamilyFilter();
showPrompts();
byId("nav").append(...[...document.querySelectorAll("main > section")].filter((s) => !s.hidden).map((s) => element("a", { href: "#" + s.id }, s.querySelector("h2").textContent)));
for (const id of ["family-judge", "family-order"]) byId(id).addEventListener("change", showFamilies);
byId("f-judge").addEventListener("change", showFamilyFilter);
byId("filter").addEventListener("input", () => { shown = PORTION; showPrompts(); });
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
byId("more").addEventListener("click", () => {
  const next = byId("list").childElementCount;
  shown += PORTION;
  showPrompts();
  byId("list").children[next]?.querySelector("summary").focus();
});
