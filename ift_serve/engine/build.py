"""Puts an engine together: a model runner, the core that feeds it, the strategies that requests name."""

from __future__ import annotations

import logging
from dataclasses import replace

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import strategies
from ift_serve.decoding.structured import StructuredOutput
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.drafting.draft_planner import DraftPlanner
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.system.start_stages import StartStages

_log = logging.getLogger(__name__)


def build_core(config: EngineConfig) -> tuple[EngineCore, ModelDescription]:
    """Load the model and wrap it. Raises ValueError or OSError with a message for the operator."""
    with StartStages("starting python") as stages:
        stages.begin("importing torch")
        # torch is imported only where a model runs.
        from ift_serve.engine.runner.model_runner import ModelRunner
        from ift_serve.modeling.decoder.model_loader import UnsupportedModelError

        try:
            runner = ModelRunner(config, stages.begin)
        except UnsupportedModelError as error:
            raise ValueError(str(error)) from error
        stages.begin("reading the tokenizer")
        description = runner.description
        context = StrategyContext.of_model(config.model, description.eos_ids, config.chat_template)
        context = replace(context, classify=runner.adapters.choose_mode)
        structured = StructuredOutput(context, description.vocabulary_size)
    drafts = _drafts(config, runner.has_independent_rows)
    return EngineCore(
        runner, config, strategies(context), adapter_tensors=runner.adapters, constraints=structured, drafts=drafts
    ), description


def _drafts(config: EngineConfig, independent_rows: bool) -> DraftPlanner | None:
    """What guesses tokens, where no answer can depend on it."""
    if config.speculation == "off":
        return None
    if not independent_rows:
        _log.warning("speculation: with this model or device a row's last bits depend on the batch; nothing is drafted")
        return None
    return DraftPlanner()
