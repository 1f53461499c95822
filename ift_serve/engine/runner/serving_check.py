"""Compares what is served with what the model computes by itself, before anything is served.

Twice: a miniature of the model (see ``modeling.decoder.miniature``) shows in float32 that the structure is served
right, windows and all; a short prompt through the real weights shows that these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ift_kernels.backend import is_triton
from ift_serve.engine.runner.batch_builder import BatchBuilder
from ift_serve.engine.runner.kv_cache import KVCache
from ift_serve.engine.sequences.step import SequenceStep
from ift_serve.modeling.decoder.attention import ATTENTION_NAME
from ift_serve.modeling.decoder.decoder import Decoder, make_decoder
from ift_serve.modeling.decoder.fused_layers import can_fuse
from ift_serve.modeling.decoder.masks import mask_windows, set_windows
from ift_serve.modeling.decoder.miniature import (
    VOCABULARY,
    WINDOW,
    deep_miniature_config,
    miniature_configs,
    original_window,
    random_model,
)
from ift_serve.modeling.decoder.model_loader import CHOOSE, LoadedModel, UnsupportedModelError, layer_geometry
from ift_serve.modeling.decoder.quantization import QuantizedWeights

_DECODES = 3
_MINIATURE_TOKENS, _REAL_TOKENS = 41, 24
_TOLERANCE = 5e-4
_REAL_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
_QUANTIZED_TOLERANCE = 0.1
"""A sum that differs in its last bit rounds an input of the next layer to another step now and then."""
_TIMES_NOISE = 4
"""How often the model's own noise of rounding a sound decoder may differ: it sums in another order everywhere."""


class ServingCheck:
    """Made before the decoder, which may take the model's weights apart; then asked about that decoder."""

    @torch.inference_mode()
    def __init__(self, loaded: LoadedModel, backend: str, block_size: int) -> None:
        """Raises UnsupportedModelError where a miniature of the model is not served as it computes by itself."""
        self._loaded = loaded
        self._backend = backend
        self._block_size = block_size
        self.fuses = backend != "reference" and can_fuse(loaded)
        self.windows: tuple[int, ...] | None = None
        """Of the model's layers, where they had to be found in its own masks."""
        self._check_structure()
        self._prompts = real_prompts(loaded)
        with loaded.quantized.rounding_inputs():
            self._own = _eager(loaded.model, lambda model: own_logits(model, self._prompts))
        if not all(torch.isfinite(logits).all() for logits in self._own):
            raise UnsupportedModelError(
                f"{loaded.name}: the model computes NaN or infinite logits in {_word(loaded.dtype)}; try another dtype"
            )
        with loaded.quantized.rounding_inputs():
            rounded = _eager(loaded.model, lambda model: rounded_logits(model, self._prompts, loaded.dtype))
        noise = max(map(_relative_difference, self._own, rounded))
        least = _QUANTIZED_TOLERANCE if loaded.quantized else _REAL_TOLERANCE[loaded.dtype]
        self._tolerance = max(least, _TIMES_NOISE * noise)

    @torch.inference_mode()
    def compare(self, decoder: Decoder, part: LoadedModel | None = None, backend: str | None = None) -> None:
        """Hold the decoder against the model's own logits. Raises UnsupportedModelError where they differ.

        part: of the model, where the decoder computes that together with other ranks; backend: its kernels.
        """
        served = served_logits(decoder, part or self._loaded, self._prompts, backend or self._backend, self._block_size)
        for own, given in zip(self._own, served, strict=True):
            relative = _relative_difference(own, given.to(own.device))
            if not relative <= self._tolerance:
                raise UnsupportedModelError(
                    f"{self._loaded.name}: {self._loaded.architecture} in {_word(self._loaded.dtype)} computes other "
                    f"logits in the {decoder.name} decoder than by itself (relative difference {relative:.2g}, "
                    f"tolerance {self._tolerance:.2g})"
                )

    def _check_structure(self) -> None:
        loaded = self._loaded
        reasons = []
        for make_config in miniature_configs(loaded.model.config):
            try:
                config = make_config()
                own = random_model(type(loaded.model), config, "eager").to(_device(loaded))
                length = min(_MINIATURE_TOKENS, loaded.context_length)
                prompts = check_prompts(length, min(VOCABULARY, int(loaded.config.vocab_size)))
                expected = own_logits(own, prompts)
                if not all(torch.isfinite(logits).all() for logits in expected):
                    raise ValueError("its logits are not finite")
            except Exception as error:  # whatever a class does with a configuration that it does not expect
                reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
                continue
            return self._compare_miniature(own, config, prompts, expected)
        raise UnsupportedModelError(
            f"{loaded.name}: {loaded.architecture} cannot be checked, since no small model of its structure can be "
            f"made ({reasons[-1]}); {CHOOSE}"
        )

    def _compare_miniature(self, own: Any, config: Any, prompts: list[list[int]], expected: list[Tensor]) -> None:
        first = self._first_difference(config, prompts, expected)
        if first is None:
            return
        loaded = self._loaded
        windows = mask_windows(own, prompts[0])
        if windows is None or not any(windows):
            raise UnsupportedModelError(
                f"{loaded.name}: {loaded.architecture} cannot be served: {_why(first, windows)}; {CHOOSE}"
            )
        self._take_windows_of_masks(prompts)

    def _take_windows_of_masks(self, prompts: list[list[int]]) -> None:
        """Serve a model whose windows are only in the masks that it makes for itself."""
        loaded = self._loaded
        config = deep_miniature_config(loaded.model.config)
        own = random_model(type(loaded.model), config, "eager").to(_device(loaded))
        windows, size = mask_windows(own, prompts[0]), original_window(loaded.config)
        if windows is None or size is None:
            raise UnsupportedModelError(
                f"{loaded.name}: {loaded.architecture} cannot be served: the windows of its attention masks are not "
                f"those of its configuration; {CHOOSE}"
            )
        first = self._first_difference(config, prompts, own_logits(own, prompts), windows)
        if first is not None:
            raise UnsupportedModelError(
                f"{loaded.name}: {loaded.architecture} cannot be served: {_why(first, windows)}; {CHOOSE}"
            )
        self.windows = tuple(size if window == WINDOW else window for window in windows)
        serve_windows(loaded, self.windows)

    def _first_difference(
        self, config: Any, prompts: list[list[int]], expected: list[Tensor], windows: list[int] | None = None
    ) -> tuple[int, float] | None:
        """The first position at which a served miniature differs, and by how much at most; None where none does."""
        loaded = self._loaded
        model = random_model(type(loaded.model), config, ATTENTION_NAME).to(_device(loaded))
        if windows is not None:
            set_windows(model, windows)
        text = model.config.get_text_config(decoder=True)
        small = replace(
            loaded,
            model=model,
            config=text,
            geometry=layer_geometry(model, text, loaded.name),
            dtype=torch.float32,
            quantized=QuantizedWeights(),
        )
        try:
            decoder = make_decoder(small, self._backend, fuse=self.fuses)
        except ValueError as error:
            raise UnsupportedModelError(f"{loaded.name}: {error}") from error
        self.fuses = decoder.name == "fused"
        try:
            served = served_logits(decoder, small, prompts, self._backend, self._block_size)
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever a class does with layers and a batch that it does not expect
            raise UnsupportedModelError(
                f"{loaded.name}: {loaded.architecture} cannot be served: it fails in the {decoder.name} decoder "
                f"({type(error).__name__}: {' '.join(str(error).split())[:160]}); {CHOOSE}"
            ) from error
        worst = [_log_prob_difference(a, b) for a, b in zip(served, expected, strict=True)]
        wrong = [int((~(row <= _TOLERANCE)).nonzero()[0]) for row in worst if bool((~(row <= _TOLERANCE)).any())]
        return (min(wrong), max(float(row.max()) for row in worst)) if wrong else None


def serve_windows(loaded: LoadedModel, windows: Sequence[int]) -> None:
    """Have a model's layers see so many tokens each, 0 for all, where its configuration does not say it."""
    set_windows(loaded.model, list(windows))
    loaded.geometry = layer_geometry(loaded.model, loaded.config, loaded.name)


def check_prompts(length: int, vocabulary: int) -> list[list[int]]:
    """Two prompts of different lengths without regularities, of ids below ``vocabulary``."""
    low = min(3, vocabulary - 1)
    first = [low + (7919 * (i + 1) * (i + 3)) % max(vocabulary - low - 2, 1) for i in range(length)]
    return [first, first[::-1][: max(1, 2 * length // 3)]]


def real_prompts(loaded: LoadedModel) -> list[list[int]]:
    """The prompts of the comparison by the model's own weights."""
    return check_prompts(min(_REAL_TOKENS, loaded.context_length), int(loaded.config.vocab_size))


def own_logits(model: Any, prompts: list[list[int]]) -> list[Tensor]:
    """``[L, V]`` float32 of each prompt by the model's own forward pass, one at a time."""
    device = next(model.parameters()).device
    return [
        model(input_ids=torch.tensor([prompt], device=device), use_cache=False).logits[0].float() for prompt in prompts
    ]


def rounded_logits(model: Any, prompts: list[list[int]], dtype: torch.dtype) -> list[Tensor]:
    """The same with one more rounding error of ``dtype`` in every module's output: what rounding does to this model."""
    generator = torch.Generator().manual_seed(5)
    half = torch.finfo(dtype).eps / 2

    def round_off(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        noise = torch.rand(output.shape, generator=generator).mul_(2).sub_(1).to(output.device)
        return (output.float() * (1 + half * noise)).to(output.dtype)

    modules = [module for module in model.modules() if not module._modules]
    handles = [module.register_forward_hook(round_off) for module in modules]
    try:
        return own_logits(model, prompts)
    finally:
        for handle in handles:
            handle.remove()


def served_logits(
    decoder: Decoder, loaded: LoadedModel, prompts: list[list[int]], backend: str, block_size: int
) -> list[Tensor]:
    """The same by a decoder as an engine runs it: the prompts side by side, two chunks and then single tokens of each,
    over a paged cache whose blocks lie in no order."""
    device = _device(loaded)
    per = max(-(-len(prompt) // block_size) for prompt in prompts)
    cache = KVCache(loaded.geometry, per * len(prompts), block_size, loaded.dtype, device)
    build_batch = BatchBuilder(cache.layers, loaded.geometry, block_size, backend, split=is_triton(backend))
    tables = [list(range(first, per * len(prompts), len(prompts)))[::-1] for first in range(len(prompts))]
    found: list[list[Tensor]] = [[] for _ in prompts]
    for cuts in zip(*(_cuts(len(prompt)) for prompt in prompts), strict=True):
        steps = [
            SequenceStep(index, prompts[index][start:end], start, tables[index])
            for index, (start, end) in enumerate(cuts)
            if end > start
        ]
        steps.sort(key=lambda step: len(step.token_ids) > 1)  # single tokens come before chunks
        if not steps:
            continue
        logits = decoder.logits(decoder.forward(build_batch(steps), None)).float()
        parts = torch.split(logits, [len(step.token_ids) for step in steps])
        for step, part in zip(steps, parts, strict=True):
            found[step.sequence_id].append(part.clone())
    return [torch.cat(parts) for parts in found]


def _cuts(length: int) -> list[tuple[int, int]]:
    """Two chunks, then single tokens."""
    prompt = max(length - _DECODES, 0)
    bounds = [0, prompt // 2 + 1, prompt, *(prompt + 1 + n for n in range(_DECODES))]
    bounds = sorted(min(bound, length) for bound in bounds)
    return list(pairwise(bounds))


def _log_prob_difference(first: Tensor, second: Tensor) -> Tensor:
    """``[L]``: the largest difference of log-probabilities at each position."""
    return (torch.log_softmax(first, -1) - torch.log_softmax(second, -1)).abs().amax(-1)


def _relative_difference(own: Tensor, other: Tensor) -> float:
    """Of logits ``[L, V]``, all together: rounding changes single ones by much, a wrong computation all."""
    centred = own - own.mean(-1, keepdim=True)
    difference = other - other.mean(-1, keepdim=True) - centred
    return float(difference.norm() / centred.norm().clamp_min(1e-6))


def _eager(model: Any, compute: Callable[[Any], list[Tensor]]) -> list[Tensor]:
    model.set_attn_implementation("eager")
    try:
        return compute(model)
    finally:
        model.set_attn_implementation(ATTENTION_NAME)


def _why(first: tuple[int, float], windows: list[int] | None) -> str:
    position, size = first
    if windows is None:
        return "its attention masks are neither causal nor causal with a sliding window"
    if position >= _MINIATURE_TOKENS // 2:
        return f"it keeps something between steps that is not in the paged cache (log-prob difference {size:.2g})"
    return (
        f"it computes something that its routed attention does not carry (from position {position} on its miniature "
        f"differs from itself, by up to {size:.2g} in log-prob)"
    )


def _device(loaded: LoadedModel) -> str:
    return next(loaded.model.parameters()).device.type


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
