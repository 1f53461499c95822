"""ModelService: what is served and what may be asked of it."""

from __future__ import annotations

from importlib import metadata

from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.server.call_guard import Call
from ift_serve.server.config import ServerConfig
from ift_serve.server.sampling import chosen_defaults, default_sampling
from ift_serve.server.thoughts import Thoughts
from ift_serve.server.validation import MAX_ALTERNATIVES
from ift_serve.text.ends import answer_ends
from ift_serve.text.prompt import PromptRenderer
from ift_serve.v1 import model_pb2 as pb


def server_version() -> str:
    """The installed version of this distribution."""
    try:
        return metadata.version("ift-serve")
    except metadata.PackageNotFoundError:
        return "0+source"


class ModelService:
    """Describes the served model."""

    def __init__(
        self, engine: BaseEngineClient, renderer: PromptRenderer, config: ServerConfig, thoughts: Thoughts
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._config = config
        self._ends = answer_ends(renderer)
        self._markers = thoughts.pair

    async def get_model(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """The model, what may be asked of it, and how busy it is."""
        model, load, limits = self._engine.model, self._engine.stats, self._config.limits
        defaults = chosen_defaults(model, self._config)
        return pb.GetModelResponse(
            name=model.name,
            architecture=model.architecture,
            fingerprint=model.fingerprint,
            parameters=model.parameters,
            vocabulary_size=model.vocabulary_size,
            dtype=model.dtype,
            device=model.device,
            weights=model.weights,
            attention_backend=model.attention_backend,
            chat_template=self._renderer.template if self._renderer.has_template else "",
            template_fingerprint=self._renderer.template_fingerprint,
            eos_token_ids=list(dict.fromkeys([*model.eos_ids, *self._ends])),
            limits=pb.Limits(
                context_length=model.context_length,
                candidates=min(limits.candidates, model.max_sequences),
                stop_strings=limits.stop_strings,
                top_alternatives=MAX_ALTERNATIVES,
                request_bytes=limits.request_bytes,
                running_sequences=model.max_sequences,
                waiting_requests=self._config.engine.max_waiting,
                thought_tokens=limits.thought_tokens,
                width=limits.width,
                total_tokens=limits.total_tokens,
            ),
            features=model.features,
            version=server_version(),
            load=pb.Load(
                waiting=load.waiting,
                running=load.running,
                # Before the first step nothing has been reported, and nothing is in use.
                free_blocks=load.free_blocks + load.cached_blocks if load.total_blocks else model.total_blocks,
                total_blocks=model.total_blocks,
                engine_restarts=self._engine.restarts,
            ),
            sampling_defaults=default_sampling(defaults),
            sampling_not_applied=defaults.not_applied,
            thought_opening=self._markers.opening if self._markers else "",
            thought_closing=self._markers.closing if self._markers else "",
        )
