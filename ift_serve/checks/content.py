"""The answer inside a form: what is left to judge once bullets, JSON, capitals and framing phrases are taken off."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ift_serve.checks.answers import Exact
from ift_serve.checks.check import Check
from ift_serve.checks.forms import Bullets, Json
from ift_serve.checks.json_text import parse_json
from ift_serve.checks.listing import ListItems
from ift_serve.checks.phrases import Begin, End, Upper
from ift_serve.checks.verdict import Verdict, failed

Form = Annotated[Begin | End | Bullets | Json | Upper, Field(discriminator="type")]
Plain = Annotated[Exact | ListItems, Field(discriminator="type")]


class Content(Check):
    """The answer is right once its forms are taken off.

    forms: requirements that the response was told to meet; whether it does is for checks of their own. reference: the
    plain right answer, whose capitals come back where the form is capitals. plain: judges what is left.
    """

    type: Literal["content"] = "content"
    forms: Annotated[tuple[Form, ...], Field(strict=False)]
    reference: str
    plain: Plain

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at nothing: what is judged is not the response as it stands."""
        try:
            text = self._without_forms(response.strip())
        except (ValueError, RecursionError) as error:
            return failed(f"not the form asked for: {error}")
        found = self.plain.verdict(text, instruction)
        return Verdict(found.passed, found.reason)

    def _without_forms(self, text: str) -> str:
        """The text in the plain answer's own form. Raises ValueError or RecursionError."""
        forms: dict[str, Check] = {form.type: form for form in self.forms}
        if isinstance(begin := forms.get("begin"), Begin):
            text = text[len(begin.phrase) :].lstrip(" :,.\n")
        if isinstance(end := forms.get("end"), End):
            text = text.rstrip(".!")
            text = text[: max(0, len(text) - len(end.phrase))].rstrip(" .,\n")
        if "bullets" in forms:
            text = ", ".join(line[2:].strip() for line in text.splitlines())
        if "json" in forms:
            value = parse_json(text)
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if "upper" in forms:
            written = {word.upper(): word for word in self.reference.replace(",", " ").split()}
            text = ", ".join(written.get(word, word.lower()) for word in text.split(", "))
        return text
