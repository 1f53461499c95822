"""What answers calls, whatever carries them: engine, prompt renderer, guard and services; no port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypedDict, Unpack

from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.adapter_service import AdapterRoots, AdapterService
from ift_serve.server.audit_log import AuditLog
from ift_serve.server.auth import Authenticator
from ift_serve.server.call_guard import CallGuard
from ift_serve.server.check_processes import CheckProcesses
from ift_serve.server.config import ServerConfig
from ift_serve.server.evaluation_service import EvaluationService
from ift_serve.server.head_scores import HeadScorer
from ift_serve.server.hosted_evaluation import HostedEvaluation
from ift_serve.server.inference_service import InferenceService
from ift_serve.server.metrics import Metrics
from ift_serve.server.model_service import ModelService
from ift_serve.server.sampling import chosen_defaults, warn_of_settings_not_applied
from ift_serve.server.services import ADAPTER, EVALUATION, INFERENCE, MODEL
from ift_serve.server.telemetry.opened import open_telemetry
from ift_serve.server.thoughts import Thoughts
from ift_serve.sharing.peers import Peers
from ift_serve.sharing.places import Places
from ift_serve.text.encoder import TextLimits
from ift_serve.text.prompt import PromptRenderer

if TYPE_CHECKING:
    from ift_serve.server.telemetry.export import Telemetry


class GivenParts(TypedDict, total=False):
    """What a server can be given beside its configuration and its engine."""

    evaluate: HostedEvaluation | None
    """What runs evaluations of the server for its callers; None: it offers none."""
    starting: asyncio.Task[None] | None
    """The engine's start, where that has begun already."""
    telemetry: Telemetry | None
    """Instead of what configuration and environment say."""


class Assembly:
    """The parts of one server behind its ports. ``start``, then ``close``; once started it has ``services``."""

    def __init__(self, config: ServerConfig, engine: BaseEngineClient, **given: Unpack[GivenParts]) -> None:
        self.config = config
        self.engine = engine
        self.metrics = Metrics()
        self.audit = AuditLog(config.audit_log, self.metrics.audit_lines_lost.inc)
        self.authenticator = Authenticator(config.tokens_file, lambda count: self.audit.write("tokens", callers=count))
        self._telemetry = given.get("telemetry") or open_telemetry(config)
        self.peers = Peers(config.trusted_proxies)
        self.guard = CallGuard(
            self.authenticator,
            self.metrics,
            {"generate": Places(config.max_calls), "admin": Places(2 * (config.max_admin_calls + config.max_watches))},
            self.peers,
            self.audit,
            None if self._telemetry is None else self._telemetry.tracing,
        )
        self.services: dict[str, object] = {}
        self._evaluate = given.get("evaluate")
        self._starting = given.get("starting")
        self._checks = CheckProcesses(config.check_timeout)

    async def start(self) -> None:
        """Load the model and the configured adapters. Raises EngineStartError, ValueError."""
        renderer = await self._start_engine()
        renderer.encoder.limit_tokens(self.engine.model.context_length)
        for name, path in self.config.adapters.items():
            try:
                info = await self.engine.load_adapter(name, str(path.resolve()), path.name)
                self.audit.write("start", method="LoadAdapter", adapter=name, version=info.version, code="OK")
            except EngineError as error:
                raise ValueError(f"--adapter {name}={path}: {error.message.removeprefix('path: ')}") from error
        self.metrics.watch(self.engine, for_pickers=self.config.picker_metrics)
        if self._telemetry is not None:
            self._telemetry.start(self.metrics.registry)
        warn_of_settings_not_applied(chosen_defaults(self.engine.model, self.config))
        thoughts = await asyncio.to_thread(Thoughts, renderer)
        services: dict[str, object] = {
            INFERENCE: InferenceService(self.engine, renderer, self.config, self.metrics, thoughts),
            MODEL: ModelService(self.engine, renderer, self.config, thoughts),
            ADAPTER: AdapterService(
                self.engine,
                AdapterRoots(self.config.adapter_roots),
                self.config.max_watches,
                self.authenticator.is_current,
            ),
        }
        services[EVALUATION] = EvaluationService(
            self._checks, HeadScorer(self.engine, renderer), dict(services), self._evaluate, self.config.max_evaluations
        )
        self.services = services

    async def _start_engine(self) -> PromptRenderer:
        """Have the engine load its model while the tokenizer is read. What is wrong with the latter is said first."""
        starting = self._starting or asyncio.create_task(self.engine.start(self.config.start_timeout))
        self._starting = starting
        reading = asyncio.create_task(asyncio.to_thread(self._renderer))
        try:
            await asyncio.wait({reading, starting}, return_when=asyncio.FIRST_EXCEPTION)
            renderer = await reading
            await starting
            return renderer
        finally:
            reading.cancel()
            await self._end_start()

    async def _end_start(self) -> None:
        """Give up the engine's start where it has not ended."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
            if not self._starting.cancelled():
                self._starting.exception()  # whoever started it is told, or has another error to tell
            self._starting = None

    def _renderer(self) -> PromptRenderer:
        config = self.config
        return PromptRenderer.from_pretrained(
            config.engine.model,
            chat_template=config.engine.chat_template,
            parse_special_tokens=config.parse_special_tokens,
            limits=TextLimits(text_bytes=config.limits.text_bytes, batch_bytes=config.limits.batch_bytes),
        )

    async def close(self) -> None:
        """Let go of the engine and the audit log at once, started or not."""
        await self._end_start()
        await self._checks.close()
        await self.engine.close()
        self.audit.write("stopped")
        await asyncio.to_thread(self.audit.close)
        if self._telemetry is not None:
            await self._telemetry.close()
