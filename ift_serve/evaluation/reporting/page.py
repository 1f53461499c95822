"""The report as one HTML page that asks nobody for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TEMPLATE = Path(__file__).parent / "page.html"
_PLACE = "__REPORT__"


def page(found: dict[str, Any]) -> str:
    """The page with the report inside; texts of models are data in it, never markup."""
    data = json.dumps(found, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, data)


def write_page(found: dict[str, Any], path: Path) -> None:
    """Write the page whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(page(found), encoding="utf-8", errors="replace")
    draft.replace(path)
