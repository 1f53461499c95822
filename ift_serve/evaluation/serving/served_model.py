"""The evaluated model: a server's model and a version of an adapter, both fixed when a run begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ift_serve.client import AsyncClient, ModelInfo, Prompt, ServerError
from ift_serve.evaluation.errors import UnsupportedServerError
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model and its load-time settings. ``info.limits["running_sequences"]`` is the server's batch."""

    info: ModelInfo

    @classmethod
    async def of(cls, client: AsyncClient) -> ServedModel:
        """What the server says of itself. Raises ServerError."""
        return cls(await client.model())

    def identity(self, adapter: str) -> dict[str, Any]:
        """Everything of the server that answers depend on. ``adapter``: ``name@version``, or empty for the base."""
        return {
            "fingerprint": self.info.fingerprint,
            "template": self.info.template_fingerprint,
            "adapter": adapter,
            "dtype": self.info.dtype,
            "weights": self.info.weights,
            "device": self.info.device,
            "attention": self.info.attention_backend,
            "version": self.info.version,
            "defaults": self.info.sampling_defaults,
        }

    @property
    def concurrency(self) -> int:
        """Twice the server's batch: while one half is computed, the other is on its way."""
        return max(2, 2 * self.info.limits.get("running_sequences", 8))

    def require_scores(self) -> None:
        """Raises UnsupportedServerError where log-probabilities would be made up."""
        if "score" not in self.info.features:
            raise UnsupportedServerError(
                f"{self.info.name}: this server does not score continuations (features: "
                f"{', '.join(self.info.features) or 'none'}); tasks with choices and perplexity need it"
            )


async def pinned_adapter(client: AsyncClient, reference: str) -> str:
    """The version that a name stands for now, as ``name@version``; empty for the base model. Raises ServerError.

    Asked with the smallest request that any caller may make: describing adapters takes a role that scoring does not.
    """
    if not reference:
        return ""
    try:
        return (await client.score(Prompt.from_text("a"), ["b"], adapter=reference)).adapter or reference
    except ServerError as error:
        if error.code == "NOT_FOUND":
            raise UnsupportedServerError(f"adapter {reference}: {error.message}") from None
        raise


async def pinned(client: AsyncClient, settings: DecodingSettings) -> DecodingSettings:
    """The settings with the version of their adapter that answers now."""
    return settings.with_adapter(await pinned_adapter(client, settings.adapter))
