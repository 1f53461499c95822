"""`ift-serve generate`: one prompt, one answer."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.channels import ChannelPrinter, Colour, checked_colour, tell, votes
from ift_serve.cli.connect import AdapterName, ClientOptions, Json, connected, readable_errors
from ift_serve.cli.reasoning import ReasoningOptions

if TYPE_CHECKING:
    from ift_serve.client import Generation


@connected
def generate(
    options: ClientOptions,
    reasoning: ReasoningOptions,
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
    alternatives: Annotated[int, typer.Option(help="with --json: likeliest tokens beside each", min=0, max=20)] = 0,
    processed_log_probs: Annotated[
        bool, typer.Option("--processed-log-probs", help="with --json: log-probabilities after temperature and filters")
    ] = False,
    prompt_ids: Annotated[bool, typer.Option("--prompt-ids", help="with --json: ids of the prompt's tokens")] = False,
    colour: Colour = None,
    as_json: Json = False,
) -> None:
    """Answer one INSTRUCTION; the text streams as it is made.

    The answer goes to the output; a thought, dimmed, and what was compared go to the error stream.
    """
    from ift_serve.client import Client, Prompt

    with readable_errors(), Client(options.server, **options.arguments()) as client:
        asked: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "max_new_tokens": max_new_tokens,
            "seed": seed,
            "stop": stop,
            "n": n,
            "adapter": adapter,
            "statistics": statistics or checked_colour(colour) is not None,
            **reasoning.arguments(),
        }
        text = sys.stdin.read() if instruction == "-" else instruction
        prompt = Prompt.from_text(text) if raw else Prompt(instruction=text, context=context)
        if as_json:
            asked |= {"top_alternatives": alternatives, "processed_log_probs": processed_log_probs}
            answer = client.generate(prompt, prompt_token_ids=prompt_ids, **asked)
            print(json.dumps(json_fields(answer), ensure_ascii=False, allow_nan=False))
        elif n > 1:
            _print_all(client.generate(prompt, **asked), colour)
        else:
            stream = client.stream(prompt, **asked)
            printer = ChannelPrinter(colour)
            for piece in stream:
                printer.show(piece)
            printer.end()
            tell(votes(stream.result().conclusion))


def _print_all(answer: Generation, colour: str | None) -> None:
    """Several candidates, one after the other."""
    from ift_serve.client import Delta

    for candidate in answer.candidates:
        typer.echo(f"[{candidate.index}] ", nl=False)
        printer = ChannelPrinter(colour)
        tokens = tuple(candidate.tokens)
        printer.show(Delta(candidate.index, candidate.text, reasoning=candidate.reasoning, tokens=tokens))
        printer.end()


def json_fields(answer: Generation) -> dict[str, Any]:
    """As JSON has them: minus infinity, which it has no number for, is null; bytes are hexadecimal."""
    fields: dict[str, Any] = _plain(dataclasses.asdict(answer))
    if answer.applied_reasoning is not None:
        fields["applied_reasoning"]["kind"] = type(answer.applied_reasoning.settings).__name__
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
