"""An answer on the terminal as it comes: thought dimmed, tokens coloured by what they were drawn from, votes."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ift_serve.client import Conclusion, Delta, Token

_SPANS = {"temperature": (0.0, 2.0), "entropy": (0.0, 4.0), "margin": (1.0, 0.0)}
"""From what to what the colours go, cool to hot; beyond it they stay as they are."""
Colour = Annotated[
    str | None, typer.Option(help="colour tokens, cool to hot, by: temperature (0 to 2), entropy (0 to 4), margin")
]


def checked_colour(colour: str | None) -> str | None:
    """The name, if it is one. Raises ValueError."""
    if colour is not None and colour not in _SPANS:
        raise ValueError(f"--colour: {colour!r} is not one of {', '.join(_SPANS)}")
    return colour


def rgb(colour: str, token: Token) -> tuple[int, int, int] | None:
    """The colour of a token, blue to red; None for one that was not drawn."""
    if token.statistics is None:
        return None
    value: float = getattr(token if colour == "margin" else token.statistics, colour)
    cool, hot = _SPANS[colour]
    heat = min(max((value - cool) / (hot - cool), 0.0), 1.0)
    return int(60 + 195 * heat), int(160 - 100 * abs(2 * heat - 1)), int(255 - 195 * heat)


class ChannelPrinter:
    """Prints one candidate: the answer on the output, the thought on the error stream, where both are a terminal's.

    ``colour``: what tokens are coloured by; their statistics must have been asked for.
    """

    def __init__(self, colour: str | None = None) -> None:
        self._colour = colour
        self._text = {"reasoning": "", "answer": ""}
        """What has come and is not printed, where tokens are awaited for its colour."""
        self._tokens: deque[Token] = deque()
        self._thinks = False

    def show(self, delta: Delta) -> None:
        """Print what is new."""
        if self._colour is None:
            self._print("reasoning", delta.reasoning)
            self._print("answer", delta.text)
            return
        self._text["reasoning"] += delta.reasoning
        self._text["answer"] += delta.text
        self._tokens.extend(delta.tokens)
        self._print_tokens(self._colour)

    def end(self) -> None:
        """Print what is left, and end the line."""
        for channel, text in self._text.items():
            self._print(channel, text)
        typer.echo()

    def _print_tokens(self, colour: str) -> None:
        """Tokens whose text is there. Those that are no part of the text, such as markers, are left out."""
        while self._tokens:
            token = self._tokens[0]
            channel = "reasoning" if token.channel == "reasoning" else "answer"
            awaited = self._text[channel]
            if token.channel != "marker" and awaited.startswith(token.text):
                self._text[channel] = awaited[len(token.text) :]
                self._print(channel, token.text, rgb(colour, token))
            elif token.channel != "marker" and token.text.startswith(awaited):
                return
            self._tokens.popleft()

    def _print(self, channel: str, text: str, fg: tuple[int, int, int] | None = None) -> None:
        if not text:
            return
        is_thought = channel == "reasoning"
        if self._thinks and not is_thought:
            typer.echo("\n", err=True)
        self._thinks = is_thought
        styled = typer.style(text, fg=fg, dim=is_thought) if fg is not None or is_thought else text
        typer.echo(styled, nl=False, err=is_thought, color=False if "NO_COLOR" in os.environ else None)


def tell(lines: list[str]) -> None:
    """Lines beside the answer, on the error stream."""
    for line in lines:
        typer.secho(line, dim=True, err=True)


def votes(conclusion: Conclusion | None) -> list[str]:
    """Lines that say what was compared, the chosen one marked; none where nothing was."""
    if conclusion is None or not conclusion.branches:
        return []
    lines = [f"{conclusion.mode}: {conclusion.answer or 'no answer'} (confidence {conclusion.confidence:.3f})"]
    for branch in conclusion.branches:
        mark = "*" if branch.chosen else " "
        answer = " ".join(branch.answer.split())[:60] or "-"
        lines.append(
            f"{mark} {answer}  confidence {branch.confidence:.3f}  votes {branch.votes:g}  "
            f"{branch.tokens} tokens  {branch.finish_reason or 'unfinished'}"
        )
    return lines
