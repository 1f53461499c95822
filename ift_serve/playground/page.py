"""The page as one HTML text with its style and script inside."""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib import resources

_SCRIPTS = (
    "elements.js",
    "settings.js",
    "commands.js",
    "calls.js",
    "tokens.js",
    "tree.js",
    "answers.js",
    "history.js",
    "start.js",
)


@cache
def page(server: str, *, is_encrypted: bool) -> str:
    """The page. ``server``: the gRPC address, for commands that people copy; ``is_encrypted``: whether it has TLS."""
    shell = _part("page.html").replace("__STYLE__", _part("style.css")).replace("__SCRIPT__", _script())
    return shell.replace("__SERVER__", html.escape(server)).replace("__TLS__", "yes" if is_encrypted else "no")


@cache
def policy() -> str:
    """What a browser may do on the page: run its own script and style, and call where it came from."""
    return (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; style-src {_hash(_part('style.css'))}; script-src {_hash(_script())}"
    )


def _script() -> str:
    return "".join(_part(name) for name in _SCRIPTS)


def _part(name: str) -> str:
    return (resources.files("ift_serve.playground") / "page_parts" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A source expression of a content security policy (W3C CSP3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
