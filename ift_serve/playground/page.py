"""The playground's page, for one server."""

from __future__ import annotations

import html

from ift_serve.pages.single_page import SinglePage

_PAGE = SinglePage(
    "ift_serve.playground",
    "settings.js",
    "commands.js",
    "calls.js",
    "tokens.js",
    "tree.js",
    "answers.js",
    "history.js",
    "start.js",
)
POLICY = _PAGE.policy
"""The content security policy of the page."""


def page(server: str, *, is_encrypted: bool) -> str:
    """The page. ``server``: the gRPC address, for commands that people copy; ``is_encrypted``: whether it has TLS."""
    shell = _PAGE.text.replace("__SERVER__", html.escape(server))
    return shell.replace("__TLS__", "yes" if is_encrypted else "no")
