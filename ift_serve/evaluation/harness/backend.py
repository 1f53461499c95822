"""lm-eval's model ``ift-serve``: generation and log-likelihoods by a server, no tensor in this process."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from ift_serve.client import AsyncClient
from ift_serve.evaluation.errors import IncompleteError
from ift_serve.evaluation.harness.chat_context import ChatContext, prompt_of
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.evaluation.serving.outcomes import Answer, Failure, LogLikelihood, Outcome
from ift_serve.evaluation.serving.request_runner import Outcomes, RequestRunner
from ift_serve.evaluation.serving.requests import Continuations, Generation, Request, WholeText
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.serving.served_model import ServedModel, pinned

_LOG = logging.getLogger(__name__)
_MOST_CONTINUATIONS = 1024
_DEFAULT_LENGTH = 256
"""Tokens of an answer where a task says nothing, as in lm-eval's other backends."""


class IftServeLM(LM):  # type: ignore[misc]
    """A server as a model of lm-eval.

    ``target``: host:port. ``results``: SQLite file that answers are kept in as they come, or ``none``. ``errors``:
    ``raise`` ends a run with requests that were not answered once all the others are, ``count`` scores them as wrong
    and says how many. The other arguments are of the connection, or settings of decoding that a task's own override:
    temperature, top_p, adaptive_temperature, reasoning, reasoning_temperature and so on.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        adapter: str = "",
        token: str | None = None,
        authority: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        results: str | None = "",
        timeout: float = 300.0,
        attempts: int = 4,
        concurrency: int | None = None,
        seed: int = 0,
        errors: Literal["raise", "count"] = "raise",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if errors not in ("raise", "count"):
            raise ValueError(f"errors: {errors!r} is neither raise nor count")
        self._errors = errors
        self._seed = int(seed)
        self._loop = EventLoopThread()
        files = [None if path is None else Path(path) for path in (authority, certificate, key)]
        token = token or os.environ.get("IFT_SERVE_TOKEN")
        self._store = ResultStore(results_path(results))
        base = DecodingSettings.read({"adapter": adapter} | settings)
        self._client, self.served, self._settings = self._loop.run(_connected(target, token, files, base))
        self.runner = RequestRunner(
            self._client,
            self.served,
            self._store,
            concurrency=concurrency,
            timeout=float(timeout),
            attempts=int(attempts),
        )
        self._adapters = {adapter: self._settings.adapter, self._settings.adapter: self._settings.adapter}
        self.failed: dict[tuple[str, int], str] = {}
        """Why there is no answer, by task and document, with ``errors="count"``."""
        self._counts = dict.fromkeys(("requests", "failed", "empty", "cut"), 0)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers without their thoughts; repeats of a request are samples of their own."""
        seen: dict[int, int] = defaultdict(int)
        asked: list[Request] = []
        for instance in requests:
            context, given = instance.args[:2]
            asked.append(Generation(prompt_of(context), self._read(given), self._seed, seen[id(instance)]))
            seen[id(instance)] += 1
        outcomes = [found[0] for found in self._ask(asked, disable_tqdm)]
        texts = [outcome.text if isinstance(outcome, Answer) else "" for outcome in outcomes]
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        self._counts["empty"] += sum(answer.is_empty for answer in answers)
        self._counts["cut"] += sum(answer.is_cut for answer in answers)
        self._check(requests, outcomes)
        for instance, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", instance.args, text)
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Continuations of one context go in one call, which computes the context once."""
        self.served.require_scores()
        groups: dict[str, list[int]] = defaultdict(list)
        for index, instance in enumerate(requests):
            groups[_context_key(instance.args[0])].append(index)
        asked: list[Request] = []
        places: list[list[int]] = []
        for indices in groups.values():
            texts = list(dict.fromkeys(requests[i].args[1] for i in indices))
            for start in range(0, len(texts), _MOST_CONTINUATIONS):
                part = tuple(texts[start : start + _MOST_CONTINUATIONS])
                asked.append(Continuations(prompt_of(requests[indices[0]].args[0]), part, self._settings.adapter))
                places.append([i for i in indices if requests[i].args[1] in part])
        answered: dict[int, Outcome] = {}
        for request, indices, found in zip(asked, places, self._ask(asked, disable_tqdm), strict=True):
            assert isinstance(request, Continuations)
            by_text = dict(zip(request.continuations, found, strict=True))
            answered |= {i: by_text[requests[i].args[1]] for i in indices}
        outcomes = [answered[i] for i in range(len(requests))]
        self._check(requests, outcomes)
        return [(_log_prob(outcome), isinstance(outcome, LogLikelihood) and outcome.is_greedy) for outcome in outcomes]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Whole texts, each token predicted once; the server cuts what is longer than its context into windows."""
        self.served.require_scores()
        asked: list[Request] = [WholeText(instance.args[0], self._settings.adapter) for instance in requests]
        outcomes = [found[0] for found in self._ask(asked, disable_tqdm)]
        self._check(requests, outcomes)
        return [_log_prob(outcome) for outcome in outcomes]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> ChatContext:
        """The conversation itself: the server has the template."""
        return ChatContext.of(chat_history, continue_final=not add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's cache of built prompts is told apart by."""
        return f"ift-serve-{self.served.info.template_fingerprint}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The server's template, for the log. A name of another one is refused: the server uses its own."""
        if isinstance(chat_template, str) and chat_template:
            raise ValueError(f"chat template {chat_template!r}: the server renders with its own template")
        return self.served.info.chat_template if chat_template else None

    def get_model_info(self) -> dict[str, Any]:
        """Model metadata and unanswered requests, for lm-eval's results."""
        asked = self._counts["requests"]
        answered = asked - self._counts["failed"]
        return {
            "model_name": self.served.info.name,
            "model_fingerprint": self.served.info.fingerprint,
            "model_dtype": self.served.info.dtype,
            "model_num_parameters": self.served.info.parameters,
            "adapter": self._settings.adapter,
            "template_fingerprint": self.served.info.template_fingerprint,
            "server_version": self.served.info.version,
            "coverage": answered / asked if asked else 1.0,
            "failed_requests": self._counts["failed"],
            "empty_answers": self._counts["empty"],
            "cut_answers": self._counts["cut"],
            "requests_kept": self.runner.totals.kept,
        }

    def close(self) -> None:
        """Close connection, file and thread."""
        self._loop.run(self._client.close())
        self._store.close()
        self._loop.close()

    def _read(self, given: Mapping[str, Any]) -> DecodingSettings:
        """The settings of a request: a task's own over those of the model's arguments; greedy as lm-eval has it."""
        settings = DecodingSettings.read(given).over(self._settings)
        defaults: dict[str, Any] = {"max_new_tokens": _DEFAULT_LENGTH}
        if not given.get("do_sample") and "temperature" not in given and "temperature" not in self._settings.sampling:
            defaults["temperature"] = 0.0
        settings = settings.over(DecodingSettings(sampling=defaults))
        if settings.adapter not in self._adapters:
            self._adapters[settings.adapter] = self._loop.run(pinned(self._client, settings)).adapter
        return settings.with_adapter(self._adapters[settings.adapter])

    def _ask(self, requests: Sequence[Request], quiet: bool) -> list[Outcomes]:
        """Outcomes in the order of the requests, with a bar."""
        from tqdm import tqdm

        found: dict[int, Outcomes] = {}
        with tqdm(total=len(requests), disable=quiet, desc="ift-serve") as bar:

            def done(index: int, outcomes: Outcomes) -> None:
                found[index] = outcomes
                bar.update()

            self._loop.run(self.runner.run(requests, done))
        return [found[index] for index in range(len(requests))]

    def _check(self, requests: Sequence[Instance], outcomes: Sequence[Outcome]) -> None:
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        self._counts["requests"] += len(outcomes)
        self._counts["failed"] += len(failures)
        for instance, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, Failure) and instance.doc_id is not None:
                self.failed[str(instance.task_name), int(instance.doc_id)] = str(outcome)
        if failures and self._errors == "raise":
            raise IncompleteError(len(failures), len(outcomes), [str(failure) for failure in failures])
        if failures:
            _LOG.warning("%d of %d requests were not answered and are scored as wrong", len(failures), len(outcomes))


def results_path(given: str | None) -> Path | None:
    """Where answers are kept: where the argument says, nowhere for ``none``, else below the user's cache."""
    if given is None or given == "none":
        return None
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ift-serve" / "evaluation.sqlite"


async def _connected(
    target: str, token: str | None, files: list[Path | None], settings: DecodingSettings
) -> tuple[AsyncClient, ServedModel, DecodingSettings]:
    """A client made in the loop that uses it. It does not retry: the runner does, and counts."""
    authority, certificate, key = files
    client = AsyncClient(target, token=token, authority=authority, certificate=certificate, key=key, retries=0)
    return client, await ServedModel.of(client), await pinned(client, settings)


def _context_key(context: str) -> str:
    return f"{type(context).__name__}:{context}"


def _log_prob(outcome: Outcome) -> float:
    return outcome.log_prob if isinstance(outcome, LogLikelihood) else float("-inf")
