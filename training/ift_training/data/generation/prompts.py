"""Prompts as files: those of the package, or a user's own in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from ift_training.data.generation.errors import GenerationError

_HASH_LENGTH = 12
_FOLDER = "prompts"


class PromptFile:
    """A text with ``$names`` that are filled in; ``$$`` is a dollar sign. Knows the hash that lineages name it by.

    Line ends at the end of the file, which editors add, are no part of it.
    """

    def __init__(self, name: str, text: str, fields: frozenset[str]) -> None:
        text = text.rstrip("\n")
        self.name = name
        self.reference = f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]}"
        self._template = Template(text)
        if not self._template.is_valid():
            raise GenerationError(f"prompt {name}: has a $ before what is no name; write $$ for a dollar sign")
        found = set(self._template.get_identifiers())
        if unknown := sorted(found - fields):
            known = ", ".join(f"${field}" for field in sorted(fields))
            raise GenerationError(f"prompt {name}: ${unknown[0]} is not filled in; there are {known}")
        if missing := sorted(fields - found):
            raise GenerationError(f"prompt {name}: does not use ${missing[0]}, without which it asks nothing")

    def fill(self, **fields: str) -> str:
        """The text with its fields."""
        return self._template.substitute(fields)


class Prompts:
    """The prompts of a run. ``folder``: files of a user, each in place of the package's file of that name."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is not None and not folder.is_dir():
            raise GenerationError(f"prompts: {folder} is no directory")
        if folder is not None and (unknown := sorted({p.stem for p in folder.glob("*.txt")} - FIELDS.keys())):
            raise GenerationError(f"prompts: {folder / unknown[0]}.txt is no prompt; there are {', '.join(FIELDS)}")
        self._read: dict[str, PromptFile] = {}

    def __getitem__(self, name: str) -> PromptFile:
        """A prompt. Raises GenerationError where the file cannot be used."""
        if name not in self._read:
            self._read[name] = PromptFile(name, self._text(name), FIELDS[name])
        return self._read[name]

    def references(self) -> list[str]:
        """All prompts by name and hash."""
        return [self[name].reference for name in FIELDS]

    def _text(self, name: str) -> str:
        own = None if self._folder is None else self._folder / f"{name}.txt"
        if own is None or not own.exists():
            return packaged(name)
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GenerationError(f"prompts: {own} cannot be read: {error}") from error


def packaged(name: str) -> str:
    """The text of a prompt that comes with the package."""
    file = resources.files("ift_training.data.generation") / _FOLDER / f"{name}.txt"
    return file.read_text(encoding="utf-8")


def _fields(*names: str) -> frozenset[str]:
    return frozenset(names)


FIELDS: Mapping[str, frozenset[str]] = {
    "instructions": _fields("examples", "number"),
    "classification": _fields("instruction"),
    "input_first": _fields("instruction"),
    "output_first": _fields("instruction"),
    "verify": _fields("asked", "response"),
    "evolve_constraint": _fields("instruction"),
    "evolve_deepen": _fields("instruction"),
    "evolve_concretise": _fields("instruction"),
    "evolve_reasoning": _fields("instruction"),
    "evolve_input": _fields("instruction", "context"),
    "evolve_breadth": _fields("instruction"),
    "same": _fields("first", "second"),
    "follow_up": _fields("asked", "response"),
    "rationale": _fields("asked"),
    "translate": _fields("asked", "language"),
}
"""The prompts that there are, and what is filled in. Each field must be used."""
