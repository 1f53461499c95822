"""The report as one HTML page that asks nobody for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ift_serve.pages.single_page import source_hash

_PARTS = Path(__file__).parent / "page_parts"
_SCRIPTS = ("elements.js", "charts.js", "sections.js", "prompts.js", "start.js")


def page(found: dict[str, Any]) -> str:
    """The page with the report inside. Texts of models are data in it, never markup.

    Its policy names the hashes of its own style and script: a browser would run nothing else, had anything got in.
    """
    style = _part("style.css")
    script = "".join(_part(name) for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {source_hash(style)}; script-src {source_hash(script)}"
    )
    data = json.dumps(found, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    # The report comes last: what it holds is never looked at for places.
    made = _part("page.html").replace("__POLICY__", policy).replace("__STYLE__", style).replace("__SCRIPT__", script)
    return made.replace("__REPORT__", data)


def write_page(found: dict[str, Any], path: Path) -> None:
    """Write the page whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(page(found), encoding="utf-8", errors="replace")
    draft.replace(path)


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")
