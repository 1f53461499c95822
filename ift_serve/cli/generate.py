"""`ift-serve generate`: one prompt, one answer."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.connect import AdapterName, ClientOptions, Json, connected, readable_errors

if TYPE_CHECKING:
    from ift_serve.client import Generation


@connected
def generate(
    options: ClientOptions,
    instruction: Annotated[str, typer.Argument(help="what to do; `-` reads it from standard input")],
    context: Annotated[str, typer.Option(help="material that the instruction is about")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="continue the text as it is, without a chat template")] = False,
    temperature: Annotated[float | None, typer.Option(help="0: greedy", min=0)] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    top_k: Annotated[int | None, typer.Option(min=0)] = None,
    min_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    adapter: AdapterName = "",
    stop: Annotated[list[str] | None, typer.Option(help="string that ends the answer; may be repeated")] = None,
    n: Annotated[int, typer.Option(help="candidates", min=1)] = 1,
    statistics: Annotated[bool, typer.Option(help="with --json: statistics of every token")] = False,
    as_json: Json = False,
) -> None:
    """Answer one INSTRUCTION; the text streams as it is made."""
    from ift_serve.client import Client, Prompt

    sampling: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "stop": stop,
        "n": n,
    }
    with readable_errors(), Client(options.server, **options.arguments()) as client:
        text = sys.stdin.read() if instruction == "-" else instruction
        prompt = Prompt.from_text(text) if raw else Prompt(instruction=text, context=context)
        if as_json:
            answer = client.generate(prompt, adapter=adapter, statistics=statistics, **sampling)
            print(json.dumps(_json_fields(answer), ensure_ascii=False))
        elif n > 1:
            for candidate in client.generate(prompt, adapter=adapter, **sampling).candidates:
                print(f"[{candidate.index}] {candidate.text}")
        else:
            for piece in client.stream(prompt, adapter=adapter, **sampling):
                print(piece.text, end="", flush=True)
            print()


def _json_fields(answer: Generation) -> dict[str, Any]:
    """As JSON has them: a bias of minus infinity, which it has no number for, is null."""
    fields = dataclasses.asdict(answer)
    if bias := fields["sampling"].get("logit_bias"):
        fields["sampling"]["logit_bias"] = {token: v if math.isfinite(v) else None for token, v in bias.items()}
    return fields
