"""Finds what the built pages would fetch from other hosts: ``python docs/external_requests.py site``."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_FETCHING_LINKS = {"stylesheet", "icon", "shortcut", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
_IN_CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


class _Page(HTMLParser):
    """Collects the addresses that a browser fetches by itself; links that a reader may follow are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        fetched = [given.get("src", ""), given.get("srcset", "")]
        if tag == "link" and _FETCHING_LINKS & set(given.get("rel", "").split()):
            fetched.append(given.get("href", ""))
        self.found += [address for address in fetched if _is_foreign(address)]
        self.found += _IN_CSS.findall(given.get("style", ""))


def _is_foreign(address: str) -> bool:
    return address.strip().startswith(("http:", "https:", "//"))


def in_page(html: str) -> list[str]:
    """Addresses on other hosts that a page fetches."""
    page = _Page()
    page.feed(html)
    return page.found + _IN_CSS.findall(html) if "<style" in html else page.found


def in_site(site: Path) -> dict[str, list[str]]:
    """The same for every page and style sheet below a folder, by path."""
    pages = {path: in_page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    sheets = {path: _IN_CSS.findall(path.read_text(encoding="utf-8")) for path in site.rglob("*.css")}
    return {str(path.relative_to(site)): found for path, found in sorted((pages | sheets).items()) if found}


if __name__ == "__main__":
    problems = in_site(Path(sys.argv[1]))
    for path, addresses in problems.items():
        print(f"{path}: fetches {', '.join(addresses)}", file=sys.stderr)
    sys.exit(bool(problems))
