"""`ift-serve chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ift_serve.cli.channels import ChannelPrinter, Colour, checked_colour, tell, votes
from ift_serve.cli.connect import AdapterName, ClientOptions, connected, fail, readable_errors
from ift_serve.cli.reasoning import ReasoningOptions

_HELP = "/reset forgets the conversation, /undo the last exchange, /history shows it, /quit ends."


@connected
def chat(
    options: ClientOptions,
    reasoning: ReasoningOptions,
    system: Annotated[str, typer.Option(help="system message")] = "",
    adapter: AdapterName = "",
    temperature: Annotated[float | None, typer.Option(help="0: greedy", min=0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    colour: Colour = None,
) -> None:
    """Talk to the served model; answers stream, the conversation is remembered. Works in a pipe, a line a turn.

    Thoughts are shown dimmed, on the error stream; they are not part of what is remembered.
    """
    from ift_serve.client import Client, InvalidRequestError, Message, Prompt, ServerError

    interactive = sys.stdin.isatty()
    with readable_errors(), Client(options.server, **options.arguments()) as client:
        asked: dict[str, Any] = {
            "adapter": adapter,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "statistics": checked_colour(colour) is not None,
            **reasoning.arguments(),
        }
        name = client.model().name
        if interactive:
            typer.secho(f"{name} at {options.server}. {_HELP}", dim=True)
        begin = [Message("system", system)] if system else []
        history = list(begin)
        while (line := _read(interactive)) is not None:
            if line.startswith("/"):
                if line == "/quit":
                    break
                _command(line, history, len(begin))
                continue
            if not line.strip():
                continue
            history.append(Message("user", line))
            try:
                stream = client.stream(Prompt.from_messages(history), **asked)
                printer = ChannelPrinter(colour)
                for piece in stream:
                    printer.show(piece)
                printer.end()
                tell(votes(stream.result().conclusion))
                history.append(Message("assistant", stream.result().text))
            except KeyboardInterrupt:
                stream.cancel()
                history.pop()
                print()
            except (ServerError, InvalidRequestError) as error:
                history.pop()
                if not interactive:
                    raise
                fail(str(error))


def _read(interactive: bool) -> str | None:
    if interactive:
        try:
            return input("> ")
        except (EOFError, KeyboardInterrupt):
            return None
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _command(line: str, history: list[Any], keep: int) -> None:
    if line == "/reset":
        del history[keep:]
    elif line == "/undo":
        del history[max(keep, len(history) - 2) :]
    elif line == "/history":
        for message in history:
            print(f"{message.role}: {message.text}")
    else:
        print(_HELP)
