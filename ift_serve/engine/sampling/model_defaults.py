"""A model's own generation settings as the defaults of requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ift_serve.engine.protocol.generate import SamplingDefaults

_NEUTRAL: dict[str, Any] = {
    "max_length": None, "max_time": None, "stop_strings": None, "min_length": 0, "min_new_tokens": 0, "num_beams": 1,
    "num_return_sequences": 1, "top_h": None, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "exponential_decay_length_penalty": None,
    "begin_suppress_tokens": None, "token_healing": False, "guidance_scale": 1.0, "watermarking_config": None,
    "penalty_alpha": 0.0, "dola_layers": None, "constraints": None, "force_words_ids": None,
}  # fmt: skip
"""What changes tokens in transformers and is not done here, with the value at which it does nothing."""

_RANGES: dict[str, Callable[[Any], bool]] = {
    "temperature": lambda value: 0 <= value <= 10,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: 0 <= value < 2**31 and value == int(value),
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: 0.01 <= value <= 10,
    "max_new_tokens": lambda value: 1 <= value < 2**31 and value == int(value),
}
_WHOLE = ("top_k", "max_new_tokens")


def sampling_defaults(generation: Mapping[str, Any], eos_ids: list[int], vocabulary: int) -> SamplingDefaults:
    """From the fields that a ``generation_config`` sets.

    The same fields as in other servers, and ``do_sample: false`` is greedy where it is said. Suppressed tokens and
    forbidden words of one token become a bias of minus infinity, which does what transformers does. What is left is
    named, with its value, in ``not_applied``.
    """
    refused: list[str] = []
    values: dict[str, Any] = {}
    for name, is_within in _RANGES.items():
        value = generation.get(name)
        if value is None:
            continue
        if isinstance(value, int | float) and math.isfinite(value) and is_within(value):
            values[name] = int(value) if name in _WHOLE else float(value)
        else:
            refused.append(f"{name}: {value}")
    if generation.get("do_sample") is False:
        values["temperature"] = 0.0
    bias = _bias(generation, eos_ids, vocabulary, refused)
    for name, neutral in _NEUTRAL.items():
        if generation.get(name) not in (None, neutral):
            refused.append(f"{name}: {generation[name]}")
    return SamplingDefaults(**values, logit_bias=bias, not_applied=refused)


def _bias(generation: Mapping[str, Any], eos_ids: list[int], vocabulary: int, refused: list[str]) -> dict[int, float]:
    """Biases of single tokens; what is about more than one goes to ``refused``."""
    given = generation.get("sequence_bias") or []
    pairs = list(given.items()) if isinstance(given, Mapping) else list(given)
    sequences = [("sequence_bias", list(ids), float(value)) for ids, value in pairs]
    # transformers leaves aside a forbidden word that is the end of the answer.
    ends = [[token] for token in eos_ids]
    forbidden = [list(ids) for ids in generation.get("bad_words_ids") or [] if list(ids) not in ends]
    sequences += [("bad_words_ids", ids, -math.inf) for ids in forbidden]
    sequences += [("suppress_tokens", [token], -math.inf) for token in generation.get("suppress_tokens") or []]
    bias: dict[int, float] = {}
    for name, ids, value in sequences:
        if len(ids) == 1 and 0 <= ids[0] < vocabulary and not math.isnan(value):
            bias[ids[0]] = bias.get(ids[0], 0.0) + value
        elif len(ids) != 1:
            refused.append(f"{name}: {ids}")
    return bias
