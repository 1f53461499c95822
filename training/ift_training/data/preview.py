"""Shows what training sees of an example: each token's segment, and whether the loss looks at it."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ift_serve.text.prompt import Segment
from ift_training.data.encode import EncodedExample

if TYPE_CHECKING:
    from rich.text import Text

_COLOURS = {
    Segment.TEMPLATE: "bright_black",
    Segment.INSTRUCTION: "cyan",
    Segment.CONTEXT: "yellow",
    Segment.RESPONSE: "green",
}
_WEB = {
    Segment.TEMPLATE: "#e4e4e4",
    Segment.INSTRUCTION: "#c4e6f5",
    Segment.CONTEXT: "#f8ebb5",
    Segment.RESPONSE: "#c9ecc4",
}
_PAGE = """<!doctype html><meta charset="utf-8"><title>data preview</title><style>
body {{ font: 15px/1.9 monospace; margin: 2em; max-width: 70em }} pre {{ white-space: pre-wrap }}
span {{ border-radius: 3px; padding: 1px; margin-right: 1px }} .loss {{ border-bottom: 3px solid #b03030 }}
{styles}</style><p>{legend}</p>
{examples}
"""


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; a character that spans several tokens is shown by the last of them."""
    texts, begun = list[str](), 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[begun:end], skip_special_tokens=False)
        if text.endswith("�") and end - begun < 4 and end < len(ids):
            texts.append("")
            continue
        texts.append(text)
        begun = end
    return texts


def to_json(example: EncodedExample, tokenizer: Any) -> dict[str, Any]:
    """One example as plain values: ``tokens`` with text, id, segment and whether the loss sees it."""
    texts = token_texts(tokenizer, example.input_ids)
    columns = zip(example.input_ids, texts, example.segment_ids, example.labels_mask, strict=True)
    shown: dict[str, Any] = {
        "task": example.task_name,
        "length": len(example.input_ids),
        "tokens": [
            {"id": token, "text": text, "segment": Segment(segment).name.lower(), "loss": bool(seen)}
            for token, text, segment, seen in columns
        ],
    }
    if example.violating is not None:
        shown["violating"] = tokenizer.decode(example.violating, skip_special_tokens=True)
    return shown


def to_text(example: EncodedExample, tokenizer: Any) -> Text:
    """One example for a terminal: colours are segments, underlined bold is what the loss sees."""
    from rich.text import Text

    line = Text()
    columns = zip(token_texts(tokenizer, example.input_ids), example.segment_ids, example.labels_mask, strict=True)
    for index, (text, segment, seen) in enumerate(columns):
        shade = " on grey15" if index % 2 else ""
        line.append(text, style=f"{'bold underline ' if seen else ''}{_COLOURS[Segment(segment)]}{shade}")
    if example.violating is not None:
        line.append(f"\nviolating: {tokenizer.decode(example.violating, skip_special_tokens=True)}", style="red")
    return line


def to_plain(example: EncodedExample, tokenizer: Any) -> str:
    """One example without colours: a line for each run of tokens, with its segment and a star where the loss looks."""
    shown = to_json(example, tokenizer)
    lines = []
    for (segment, seen), run in itertools.groupby(shown["tokens"], key=lambda t: (t["segment"], t["loss"])):
        text = "".join(token["text"] for token in run).replace("\n", "\\n")
        lines.append(f"{segment:11} {'*' if seen else ' '} {text}")
    if "violating" in shown:
        lines.append(f"{'violating':11}   {shown['violating']}".replace("\n", "\\n"))
    return "\n".join(lines)


def legend() -> Text:
    """What the colours of :func:`to_text` mean."""
    from rich.text import Text

    line = Text("segments: ")
    for segment, colour in _COLOURS.items():
        line.append(segment.name.lower(), style=colour).append("  ")
    return line.append("seen by the loss", style="bold underline")


def to_html(examples: Sequence[EncodedExample], tokenizer: Any) -> str:
    """A page of examples that needs nothing else: background is the segment, a red line what the loss sees."""
    blocks = []
    for example in examples:
        shown = to_json(example, tokenizer)
        tokens = "".join(_span(token) for token in shown["tokens"])
        wrong = f"<p>violating: {html.escape(shown['violating'])}</p>" if "violating" in shown else ""
        blocks.append(f"<h3>{html.escape(example.task_name)}, {shown['length']} tokens</h3><pre>{tokens}</pre>{wrong}")
    styles = "\n".join(f".{s.name.lower()} {{ background: {colour} }}" for s, colour in _WEB.items())
    names = " ".join(f'<span class="{s.name.lower()}">{s.name.lower()}</span>' for s in _WEB)
    return _PAGE.format(
        styles=styles, legend=f'{names} <span class="loss">seen by the loss</span>', examples="\n".join(blocks)
    )


def _span(token: dict[str, Any]) -> str:
    seen = " loss" if token["loss"] else ""
    return f'<span class="{token["segment"]}{seen}" title="{token["id"]}">{html.escape(token["text"])}</span>'
