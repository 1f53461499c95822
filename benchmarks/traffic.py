"""What the soak asks for: requests whose solo answers are known, and ways to ask that do not wait for the end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from ift_serve.client import AsyncClient, Prompt

TIMEOUT = 120.0
"""Seconds a call may take before it counts as lost."""


@dataclass(frozen=True)
class Answer:
    """What must come out, whatever else runs: the tokens and text of each candidate, or the scores."""

    tokens: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
    adapter: str = ""


@dataclass(frozen=True)
class Case:
    """A request. With ``continuations`` it is scored, else continued."""

    prompt: tuple[int, ...]
    sampling: dict[str, Any] = field(default_factory=dict)
    continuations: tuple[tuple[int, ...], ...] = ()

    async def ask(self, client: AsyncClient, *, stream: bool = False, adapter: str = "") -> Answer:
        """The whole answer, which names the version of the adapter that it is of."""
        prompt = Prompt.from_tokens(self.prompt)
        if self.continuations:
            scored = await client.score(
                prompt, self.continuations, token_log_probs=True, timeout=TIMEOUT, adapter=adapter
            )
            return Answer(scores=tuple(s.token_log_probs for s in scored.scores), adapter=scored.adapter)
        options = self.sampling | {"tokens": True, "timeout": TIMEOUT, "adapter": adapter}
        if stream:
            whole = await client.stream(prompt, **options).result()
        else:
            whole = await client.generate(prompt, **options)
        return Answer(
            tuple(tuple(t.token_id for t in c.tokens) for c in whole.candidates),
            tuple(c.text for c in whole.candidates),
            tuple(c.finish_reason for c in whole.candidates),
            adapter=whole.adapter,
        )

    async def leave_early(self, client: AsyncClient, after: int) -> list[list[int]]:
        """Cancel the stream after that many messages; returns what each candidate had said by then."""
        said: list[list[int]] = [[] for _ in range(self.sampling.get("n", 1))]
        seen = 0
        async with client.stream(
            Prompt.from_tokens(self.prompt), tokens=True, timeout=TIMEOUT, **self.sampling
        ) as stream:
            async for piece in stream:
                said[piece.index] += [t.token_id for t in piece.tokens]
                seen += 1
                if seen >= after:
                    break
        return said


def cases(count: int, vocabulary: int, seed: int) -> list[Case]:
    """Seeded requests of all kinds, many of which share the beginning of their prompts."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary // 8, vocabulary) for _ in range(rng.randint(low, high)))

    beginnings = [(), ids(16, 16), ids(48, 48), ids(70, 70)]
    made = []
    for number in range(count):
        prompt = rng.choice(beginnings) + ids(1, 40)
        if number % 5 == 4:
            made.append(Case(prompt, continuations=tuple(ids(1, 12) for _ in range(rng.randint(1, 5)))))
            continue
        sampling: dict[str, Any] = {
            "max_new_tokens": rng.randint(1, 60),
            "seed": rng.randrange(1, 2**31),
            "n": rng.choice((1, 1, 1, 2, 4)),
            "temperature": rng.choice((0.0, 0.7, 1.0)),
            "ignore_eos": rng.random() < 0.7,
        }
        if rng.random() < 0.3:
            sampling |= {"top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1, "presence_penalty": 0.2}
        made.append(Case(prompt, sampling))
    return made


BAD: list[tuple[Prompt, dict[str, Any]]] = [
    (Prompt.from_tokens((5, 6)), {"temperature": float("nan")}),
    (Prompt.from_tokens((5, 6)), {"top_p": 1.5}),
    (Prompt.from_tokens((5, 6)), {"n": 100_000}),
    (Prompt.from_tokens((2**31 - 1,)), {}),
    (Prompt.from_tokens(()), {}),
    (Prompt.from_tokens((7,) * 100_000), {}),
]
"""Requests that must be refused as the caller's mistake."""


async def with_stop(case: Case, client: AsyncClient, rng: random.Random) -> Case:
    """The same request, stopped by a piece of its own answer."""
    text = (await case.ask(client)).texts[0]
    if len(text) < 8:
        return case
    at = rng.randrange(2, len(text) - 3)
    return Case(case.prompt, case.sampling | {"stop": [text[at : at + 3]]})
