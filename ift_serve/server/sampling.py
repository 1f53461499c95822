"""Effective sampling parameters for responses, and the defaults of unset fields."""

from __future__ import annotations

import logging

from ift_serve.engine.protocol.generate import SamplingDefaults, SamplingParams
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.server.adaptive import applied_adaptive, applied_target
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb

_log = logging.getLogger(__name__)


def chosen_defaults(model: ModelDescription, config: ServerConfig) -> SamplingDefaults:
    """What unset fields stand for: what the model's own settings say, or nothing where they are to be left aside."""
    return model.sampling_defaults if config.sampling_defaults == "model" else SamplingDefaults()


def warn_of_settings_not_applied(defaults: SamplingDefaults) -> None:
    """Name in the log what the model's settings ask for and no answer gets."""
    if defaults.not_applied:
        _log.warning(
            "the model's generation_config asks for what this server does not do, so answers differ from "
            "transformers.generate in it: %s",
            "; ".join(defaults.not_applied),
        )


def applied_sampling(params: SamplingParams, stop: list[str]) -> pb.Sampling:
    """The effective sampling parameters for the response. Filters that are off are left unset."""
    return pb.Sampling(
        temperature=params.temperature,
        reasoning_temperature=params.reasoning_temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=params.logit_bias,
        seed=params.seed,
        max_new_tokens=params.max_new_tokens,
        stop=stop,
        stop_token_ids=params.stop_ids,
        ignore_eos=params.ignore_eos,
        n=params.candidates,
        adaptive=applied_adaptive(params.adaptive),
        top_n_sigma=params.top_n_sigma or None,
        p_less=params.p_less or None,
        top_h=params.top_h or None,
        target_probability=applied_target(params.target_probability),
    )


def default_sampling(defaults: SamplingDefaults) -> pb.Sampling:
    """The defaults of unset sampling fields, for ``GetModel``."""
    return pb.Sampling(
        temperature=defaults.temperature,
        top_p=defaults.top_p,
        top_k=defaults.top_k,
        min_p=defaults.min_p,
        repetition_penalty=defaults.repetition_penalty,
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias=defaults.logit_bias,
        max_new_tokens=defaults.max_new_tokens,
        n=1,
    )
