"""Models that judge: one behind a server of this project, or one behind any endpoint that answers as OpenAI's does."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

from ift_serve.checks.errors import MissingExtraError
from ift_serve.client import AsyncClient, Prompt, ServerError
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.judging.questions import SYSTEM
from ift_serve.evaluation.serving.outcomes import answer_text

KEY_VARIABLE = "IFT_SERVE_JUDGE_KEY"
"""Where the key of an endpoint is read from. It is in no result, error or log."""
_MAX_TOKENS = 512
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
_ATTEMPTS, _FIRST_PAUSE, _LONGEST_PAUSE = 4, 0.5, 20.0


class JudgeError(Exception):
    """A question without a reply; it is counted apart."""


class Judge(Protocol):
    """A model that is asked one question at a time."""

    name: str

    async def reply(self, question: str, seed: int) -> str:
        """Its reply, greedy where it can be told to. Raises JudgeError, EvaluationError where none will ever come."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class ServedJudge:
    """A model, or an adapter, behind a server of this project."""

    def __init__(self, client: AsyncClient, model: str, adapter: str = "", timeout: float = 300.0) -> None:
        self._client = client
        self._adapter = adapter
        self._timeout = timeout
        self.name = f"{model}/{adapter}" if adapter else model

    async def reply(self, question: str, seed: int) -> str:
        """See :class:`Judge`. A thought is no reply."""
        prompt = Prompt.from_messages([("system", SYSTEM), ("user", question)])
        try:
            found = await self._client.generate(
                prompt, adapter=self._adapter, temperature=0.0, max_new_tokens=_MAX_TOKENS, seed=seed,
                timeout=self._timeout,
            )  # fmt: skip
        except ServerError as error:
            if error.code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNIMPLEMENTED"):
                raise EvaluationError(f"judge {self.name}: {error.code}: {error.message}") from None
            raise JudgeError(f"{error.code}: {error.message}") from None
        return answer_text(found.candidates[0])[0]

    async def close(self) -> None:
        """The client is closed here."""
        await self._client.close()


class EndpointJudge:
    """A model behind ``POST {url}/chat/completions``. ``url``: up to the version, as ``https://host/v1``."""

    def __init__(self, url: str, model: str, key: str | None = None, timeout: float = 300.0) -> None:
        """Raises MissingExtraError without the package httpx2."""
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtraError("asking a judge over HTTP", "httpx2", "eval") from error
        if not url.startswith(("http://", "https://")):
            raise EvaluationError(f"judge: {url}: begin with http:// or https://")
        self.name = model
        self._key = key
        self._errors: type[Exception] = httpx2.HTTPError
        self._url = f"{url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Redirects are not followed: the key would go to whoever they lead to.
        self._http = httpx2.AsyncClient(headers=headers, timeout=timeout, follow_redirects=False)

    async def reply(self, question: str, seed: int) -> str:
        """See :class:`Judge`. Statuses that may pass are asked again, four times in all."""
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        body = {"model": self.name, "messages": messages, "temperature": 0, "max_tokens": _MAX_TOKENS, "seed": seed}
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            wanted = None
            try:
                response = await self._http.post(self._url, json=body)
            except self._errors as error:
                said = self._public(f"{type(error).__name__}: {error}")
            else:
                if response.status_code == 200:
                    return _content(response)
                said = self._public(f"status {response.status_code}: {response.text[:200]!r}")
                if response.status_code in (401, 403, 404):
                    raise EvaluationError(f"judge {self.name}: {said}; the key is read from {KEY_VARIABLE}")
                if response.status_code not in _RETRIED:
                    raise JudgeError(said)
                wanted = _seconds(response.headers.get("retry-after"))
            if attempt < _ATTEMPTS:
                await asyncio.sleep(min(_LONGEST_PAUSE, max(wanted or 0.0, pause)))
                pause *= 2
        raise JudgeError(said)

    def _public(self, text: str) -> str:
        """A text without the key, which an endpoint may say back."""
        return text.replace(self._key, "(key)") if self._key else text

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()


def environment_key() -> str | None:
    """The key of an endpoint, None where none is set."""
    return os.environ.get(KEY_VARIABLE) or None


def _content(response: Any) -> str:
    """The text of the first choice. Raises JudgeError: nothing that is missing is taken for a reply."""
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise JudgeError("the answer has no choices[0].message.content") from None
    if not isinstance(content, str) or not content.strip():
        raise JudgeError("the answer is empty")
    return content


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.replace(".", "", 1).isdecimal() else None
