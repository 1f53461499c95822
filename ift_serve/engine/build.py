"""Puts an engine together: a model runner, the core that feeds it, the strategies that requests name."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from ift_serve.decoding.context import StrategyContext, read_renderer
from ift_serve.decoding.registry import strategies
from ift_serve.decoding.structured import StructuredOutput
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.drafting.draft_planner import LONGEST_DRAFT, DraftPlanner
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.modeling.lean_imports import import_lean_numba, import_lean_transformers
from ift_serve.system.start_stages import StartStages
from ift_serve.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from ift_serve.engine.runner.model_runner import ModelRunner

_log = logging.getLogger(__name__)


def build_core(config: EngineConfig, *, own_process: bool = False) -> tuple[EngineCore, ModelDescription]:
    """Load the model and wrap it. Raises ValueError or OSError with a message for the operator.

    own_process: nothing but this engine runs in this process. It then starts as fast as it can: imports what serving
    needs of transformers, compiles kernels in processes beside it, and believes an earlier start's comparisons.
    """
    with StartStages("starting python") as stages:
        stages.begin("importing torch")
        if own_process:
            import_lean_transformers()
            import_lean_numba()
        # torch is imported only where a model runs.
        from ift_serve.engine.runner.kernel_compilation import KernelCompilation
        from ift_serve.engine.runner.model_runner import ModelRunner
        from ift_serve.modeling.decoder.model_loader import UnsupportedModelError

        compilation = KernelCompilation.begun(config) if own_process else None
        with ThreadPoolExecutor(1, "tokenizer") as reader:
            tokenizer = reader.submit(read_renderer, config.model, config.chat_template)
            try:
                on_lost = _end_process if own_process else None
                runner = ModelRunner(config, stages.begin, keeps_checks=own_process, on_lost=on_lost)
            except UnsupportedModelError as error:
                raise ValueError(str(error)) from error
            stages.begin("reading the tokenizer")
            description = runner.description
            context = StrategyContext.of_renderer(tokenizer.result(), description.eos_ids)
        context = replace(context, classify=runner.adapters.choose_mode)
        structured = StructuredOutput(context, description.vocabulary_size)
        drafts = _drafts(config, runner, stages)
        runner.begin_serving()
    if compilation is not None:
        compilation.yield_to_serving()
    return EngineCore(
        runner, config, strategies(context), adapter_tensors=runner.adapters, constraints=structured, drafts=drafts
    ), description


def _end_process(why: str) -> None:
    """What computes is broken; this process may wait for it in native code, so it ends as a crash does."""
    _log.error("%s; the engine ends", why)
    sys.stderr.flush()
    os._exit(1)


def _drafts(config: EngineConfig, runner: ModelRunner, stages: StartStages) -> DraftPlanner | None:
    """What guesses tokens, where no answer can depend on it. Raises ValueError and OSError."""
    if config.speculation == "off":
        return None
    if config.draft_model is not None:
        _check_tokens(config.model, config.draft_model)
    if not runner.has_independent_rows:
        _log.warning("speculation: with this model or device a row's last bits depend on the batch; nothing is drafted")
        return None
    from ift_serve.engine.runner.step_timing import step_seconds

    stages.begin("timing steps")
    measured = step_seconds(runner, 1 + LONGEST_DRAFT)
    if config.draft_model is None:
        return DraftPlanner(measured=measured)
    from ift_serve.engine.runner.draft_model import DraftModel
    from ift_serve.modeling.decoder.model_loader import UnsupportedModelError

    stages.begin("loading the draft model")
    try:
        return DraftPlanner(DraftModel(config, runner.description), measured)
    except (UnsupportedModelError, ValueError) as error:
        raise ValueError(f"draft_model: {error}") from error


def _check_tokens(served: str, draft: str) -> None:
    """Raises ValueError where the two models' tokens differ, with the first that does."""
    own, other = (load_tokenizer(path).get_vocab() for path in (served, draft))
    if own == other:
        return
    token, _ = min(own.items() ^ other.items(), key=lambda item: (item[1], item[0]))
    raise ValueError(
        f"draft_model: its tokens are not the model's: {token!r} is {own.get(token, 'none')} in {served} and "
        f"{other.get(token, 'none')} in {draft}, of {len(own)} and {len(other)}; choose one of its family"
    )
