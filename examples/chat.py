"""Streams a conversation, piece by piece: ``python examples/chat.py [SERVER]``. An empty line ends it.

The conversation so far goes with each message; the server computes only what is new of it.
"""

from __future__ import annotations

import contextlib
import sys

from ift_serve.client import Client, Message


def main(server: str) -> None:
    messages: list[Message] = []
    with Client(server) as client:
        while text := input("> ").strip():
            messages.append(Message("user", text))
            with client.stream(messages, temperature=0, max_new_tokens=200) as stream:
                for piece in stream:
                    print(piece, end="", flush=True)
                answer = stream.result()
            messages.append(Message("assistant", answer.text))
            usage = answer.usage
            print(f"\n[{usage.generated_tokens} tokens, {usage.cached_tokens} of {usage.prompt_tokens} known before]")


if __name__ == "__main__":
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
