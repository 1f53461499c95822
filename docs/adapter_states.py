"""The tables of docs/adapter-states.md, as the code has them: ``python docs/adapter_states.py`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ift_serve.engine.adapters import states
from ift_serve.frontend import wanted_adapters

PAGE = Path(__file__).parent / "adapter-states.md"
DRAWING = Path(__file__).parent / "adapter-states.svg"


def version_table() -> Iterator[str]:
    """Of loads and versions, in the engine."""
    yield "| from | what happens | to | what follows, in this order |"
    yield "| --- | --- | --- | --- |"
    for (state, event), (after, effects) in states.TRANSITIONS.items():
        yield f"| {state.name} | {event} | {after.name} | {'; '.join(effects)} |"


def name_table() -> Iterator[str]:
    """Of names, in the server process."""
    yield "| from | what happens | to |"
    yield "| --- | --- | --- |"
    for (standing, event), after in wanted_adapters.TRANSITIONS.items():
        yield f"| {standing.name} | {event} | {after.name} |"


def page(text: str) -> str:
    """The page with both tables as they are now, each between the comments that name it."""
    for name, rows in (("versions", version_table()), ("names", name_table())):
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert mark and end, f"the page has no place for the table of {name}"
        text = before + mark + "".join(f"{row}\n" for row in rows) + end + after
    return text


def arrows() -> set[tuple[str, str, str]]:
    """What the drawing must show: every transition that leads to another state, as names of state, event and state."""
    versions = {(s.name, e.name, t.state.name) for (s, e), t in states.TRANSITIONS.items()}
    names = {(s.name, e.name, t.name) for (s, e), t in wanted_adapters.TRANSITIONS.items()}
    return {arrow for arrow in versions | names if arrow[0] != arrow[2]}


def drawn(svg: str) -> list[tuple[str, str, str]]:
    """The arrows of the drawing, by their attributes."""
    return re.findall(r'<path class="arrow" data-from="(\w+)" data-event="(\w+)" data-to="(\w+)"', svg)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
