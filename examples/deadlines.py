"""Many requests at once, each with a deadline: ``python examples/deadlines.py [SERVER]``.

The client tries again by itself where nothing can be done twice: UNAVAILABLE before the first token, RESOURCE_EXHAUSTED
after the delay that the server names, both within the timeout. A deadline ends an answer a little early, so that what
there is still arrives.
"""

from __future__ import annotations

import asyncio
import sys

from ift_serve.client import AsyncClient, ServerError

QUESTIONS = [f"What is {number} + {number + 1}?" for number in range(1, 13)]


async def ask(client: AsyncClient, question: str, timeout: float) -> str:
    """The answer, as much of it as there is in time, or why there is none."""
    try:
        answer = await client.generate(question, temperature=0, timeout=timeout)
    except ServerError as error:
        if error.code == "DEADLINE_EXCEEDED":
            return "(nothing in time)"
        again = "" if error.retry_after is None else f"; come back in {error.retry_after:g} s"
        return f"({error.code}: {error.message}{again}; request {error.request_id})"
    return answer.text + (" (cut by the deadline)" if answer.finish_reason == "deadline" else "")


async def main(server: str) -> None:
    async with AsyncClient(server, retries=5) as client:
        answers = await asyncio.gather(*(ask(client, question, timeout=10) for question in QUESTIONS))
        for question, text in zip(QUESTIONS, answers, strict=True):
            print(f"{question:16} {text}")
        hurried = await ask(client, "Tell a story about Clara. Use the words boat and fox.", timeout=0.02)
        print(f"in 20 ms:        {hurried}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"))
