"""A page as one HTML text with its style and scripts inside, and the policy under which browsers run only these."""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property
from importlib import resources

_ELEMENTS = "elements.js"


class SinglePage:
    """``page.html`` of a package's ``page_parts`` with ``style.css`` and the named scripts in their places.

    Before the page's own scripts comes ``elements.js`` of this package: strict mode, ``$``, ``element``.
    """

    def __init__(self, package: str, *scripts: str) -> None:
        self._parts = resources.files(package) / "page_parts"
        self._scripts = scripts

    @cached_property
    def text(self) -> str:
        """The page."""
        shell = self._part("page.html")
        return shell.replace("__STYLE__", self._style).replace("__SCRIPT__", self._script)

    @cached_property
    def policy(self) -> str:
        """What a browser may do on the page: run its own script and style, and call where it came from."""
        return (
            "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; style-src {source_hash(self._style)}; script-src {source_hash(self._script)}"
        )

    @cached_property
    def _style(self) -> str:
        return self._part("style.css")

    @cached_property
    def _script(self) -> str:
        shared = (resources.files(__package__) / _ELEMENTS).read_text(encoding="utf-8")
        return shared + "".join(self._part(name) for name in self._scripts)

    def _part(self, name: str) -> str:
        return (self._parts / name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """A source expression of a content security policy (W3C CSP3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
