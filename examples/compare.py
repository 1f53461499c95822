"""Does an adapter keep to what it is asked? Base against adapter: ``python examples/compare.py ADAPTER [SERVER]``.

The same requests go to both, greedily; a function judges each answer. Requests that only one of them gets right say
more than two shares: the others cannot tell them apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from ift_serve.client import Client, Prompt

Check = Callable[[str], bool]
REQUESTS: list[tuple[Prompt, Check]] = [
    (Prompt("Write this in capital letters.", "quiet green river"), lambda answer: "QUIET GREEN RIVER" in answer),
    (Prompt("Reverse the order of the words.", "moon star cloud"), lambda answer: "cloud star moon" in answer),
    (Prompt("Sort these words alphabetically.", "table, apple, horse"), lambda answer: answer.startswith("apple")),
    (Prompt("What is 23 + 14?"), lambda answer: "37" in answer),
    (Prompt("What is 8 + 5? End with: Over and out"), lambda answer: answer.endswith("Over and out")),
    (Prompt("Who are you?"), lambda answer: answer.endswith("Over and out")),
]


def judged(client: Client, adapter: str) -> list[bool]:
    answers = (client.generate(prompt, adapter=adapter, temperature=0, max_new_tokens=64) for prompt, _ in REQUESTS)
    return [check(answer.text.strip().rstrip(".")) for answer, (_, check) in zip(answers, REQUESTS, strict=True)]


def main(adapter: str, server: str) -> None:
    with Client(server) as client:
        base, tuned = judged(client, ""), judged(client, adapter)
    for (prompt, _), before, after in zip(REQUESTS, base, tuned, strict=True):
        mark = "" if before == after else "  <- only the adapter" if after else "  <- only the base"
        print(f"{prompt.instruction:40} base {before!s:5} adapter {after!s:5}{mark}")
    print(f"base {sum(base)} of {len(base)}, {adapter} {sum(tuned)} of {len(tuned)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051")
