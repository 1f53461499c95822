"""Adherence score of a response, by an adapter's head."""

from __future__ import annotations

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.adherence import score_adherence
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.adapter_service import check_reference
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import invalid
from ift_serve.text.ends import answer_ends
from ift_serve.text.prompt import PromptRenderer, RenderedPrompt
from ift_serve.text.workers import TextWorkers

COMPONENT = "adherence_head"


class HeadScorer:
    """Asks the engine, where the adapter has such a head."""

    def __init__(self, engine: BaseEngineClient, renderer: PromptRenderer) -> None:
        self._engine = engine
        self._renderer = renderer
        self._end = answer_ends(renderer)[:1]
        self._workers = TextWorkers()

    async def score(self, prompt: str, response: str, adapter: str, call: Call) -> float | str:
        """A probability, or why there is none. Raises StatusError, EngineError, PromptError."""
        check_reference(adapter, "adapter")
        if not prompt.strip():
            raise invalid("prompt", "is empty; the adherence head judges a response to a prompt")
        info = self._engine.adapters.find(adapter)
        if info is None:
            raise EngineError(FailureKind.NOT_FOUND, f"adapter: {adapter!r} is not loaded", "adapter")
        if COMPONENT not in info.components:
            return f"the adapter {info.name}@{info.version} has no adherence head"
        size = len(prompt.encode()) + len(response.encode())
        asked, answer = await self._workers.run(size, lambda: self._tokens(prompt, response))
        limit = self._engine.model.context_length
        if len(asked.token_ids) + len(answer) > limit:
            raise invalid("response", f"with its prompt is over the model's {limit} tokens")
        [score] = await score_adherence(
            self._engine,
            call.engine_id,
            asked.token_ids,
            asked.segment_ids,
            [answer],
            f"{info.name}@{info.version}",
            client=call.identity.name,
            arrival=call.arrival,
            deadline=call.deadline,
        )
        return score

    def _tokens(self, prompt: str, response: str) -> tuple[RenderedPrompt, list[int]]:
        """The prompt as a request has it, and the answer as the model would have generated it, with its end."""
        asked = self._renderer.instruction(prompt)
        self._renderer.encoder.check([response], "response")
        return asked, [*self._renderer.answer_ids(asked, "", response), *self._end]
