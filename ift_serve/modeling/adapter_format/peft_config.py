"""``adapter_config.json`` as PEFT writes it: what it means for each module, and what of it is not served."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictBool, StrictInt, StrictStr, ValidationError

from ift_serve.modeling.adapter_format.config import PEFT_CONFIG, first_problem
from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.adapter_format.patterns import Budget, Pattern, PatternError, SuffixPattern

_MOST_PATTERNS = 1024
_NAME = re.compile(r"[A-Za-z0-9_.]+")
_FIRST_NUMBER = re.compile(r".*?\.[^.]*\.(?P<index>\d+)\.")
_LARGEST_ALPHA = 1e6
_WITHOUT_EFFECT = frozenset(
    {
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
        "runtime_config",
    }
)
"""Fields of no consequence when an adapter is applied: provenance, training, and settings of methods that are off."""
_REASONS = {
    "lora_bias": "biases of LoRA B are not served",
    "layer_replication": "the base model keeps its layers",
    "alora_invocation_tokens": "activated LoRA is not served",
    "target_parameters": "LoRA is served on modules only, not on bare parameters",
    "use_qalora": "quantisation-aware LoRA is not served; merge it",
    "megatron_config": "Megatron layers are not served",
    "loftq_config": "the base model would have to be quantised; convert the adapter to plain LoRA",
}
_OFF_IF_EMPTY = frozenset({"loftq_config", "target_parameters", "layer_replication", "megatron_config"})
_PLAIN_STARTS = frozenset({"gaussian", "orthogonal", "eva", "true", "false"})

Names = list[StrictStr]
Rank = Annotated[StrictInt, Field(ge=1)]
Alpha = Annotated[float, Field(strict=True, ge=-_LARGEST_ALPHA, le=_LARGEST_ALPHA, allow_inf_nan=False)]
TokenIds = list[Annotated[StrictInt, Field(ge=0)]]


class PeftConfig(BaseModel):
    """The fields of a LoRA configuration that decide what it computes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: Rank = 8
    lora_alpha: Alpha = 8
    use_rslora: StrictBool = False
    use_dora: StrictBool = False
    rank_pattern: dict[str, Rank] = {}
    alpha_pattern: dict[str, Alpha] = {}
    target_modules: StrictStr | Names = []
    exclude_modules: StrictStr | Names = []
    layers_to_transform: StrictInt | Annotated[list[StrictInt], Field(max_length=4096)] = []
    layers_pattern: StrictStr | Annotated[Names, Field(max_length=64)] = []
    modules_to_save: Names = Field(default=[], max_length=256)
    trainable_token_indices: TokenIds | dict[str, TokenIds] = []
    ensure_weight_tying: StrictBool = False

    _ranks: list[tuple[SuffixPattern, int]] = PrivateAttr(default_factory=list)
    _alphas: list[tuple[SuffixPattern, float]] = PrivateAttr(default_factory=list)
    _targets: Pattern | frozenset[str] = PrivateAttr(default=frozenset())
    _excluded: Pattern | frozenset[str] = PrivateAttr(default=frozenset())

    def model_post_init(self, context: object, /) -> None:
        """Prepare the patterns. Raises AdapterError, naming the field and the pattern."""
        budget = Budget()
        self._ranks = list(_suffixes("rank_pattern", self.rank_pattern, budget))
        self._alphas = list(_suffixes("alpha_pattern", self.alpha_pattern, budget))
        self._targets = _matcher("target_modules", self.target_modules, budget)
        self._excluded = _matcher("exclude_modules", self.exclude_modules, budget)

    @property
    def every_linear(self) -> bool:
        """Whether all linear layers but the head are adapted."""
        return isinstance(self.target_modules, str) and self.target_modules.lower() == "all-linear"

    def rank_of(self, path: str) -> int:
        """The rank of a module: PEFT takes the first pattern that matches."""
        with _naming("rank_pattern"):
            return next((rank for pattern, rank in self._ranks if pattern.matches(path)), self.r)

    def scale_of(self, path: str, rank: int) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)."""
        with _naming("alpha_pattern"):
            alpha = next((alpha for pattern, alpha in self._alphas if pattern.matches(path)), self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def saves(self, path: str) -> bool:
        """Whether the module has a full copy. PEFT compares the ends of paths, dot or not."""
        return any(path.endswith(name) for name in self.modules_to_save)

    def targets(self, path: str) -> bool:
        """Whether PEFT adapts this module (``check_target_module_exists``); of ``all-linear`` only the exceptions."""
        with _naming("exclude_modules"):
            if _matches(self._excluded, path):
                return False
        if any(f".{name}." in f".{path}." for name in self.modules_to_save):
            return False
        with _naming("target_modules"):
            return self.every_linear or (_matches(self._targets, path) and self._in_layers(path))

    def _in_layers(self, path: str) -> bool:
        wanted = self.layers_to_transform
        if isinstance(wanted, list) and not wanted:
            return True
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        if not any(patterns):
            found = _FIRST_NUMBER.match(path)
        else:
            tries = (re.match(rf"(?:^|.*?\.){re.escape(p)}\.(?P<index>\d+)\.", path) for p in patterns)
            found = next((match for match in tries if match), None)
        return found is not None and int(found["index"]) in ([wanted] if isinstance(wanted, int) else wanted)


@contextmanager
def _naming(field: str, pattern: str = "") -> Iterator[None]:
    """Turns what is wrong with a pattern into an AdapterError that names the field."""
    try:
        yield
    except PatternError as error:
        place = f"{PEFT_CONFIG}: {field}: {quoted(pattern)}".removesuffix(": ")
        raise AdapterError(f"{place}: {error}") from None


def _suffixes(field: str, patterns: dict[str, Any], budget: Budget) -> Iterator[tuple[SuffixPattern, Any]]:
    if len(patterns) > _MOST_PATTERNS:
        raise AdapterError(f"{PEFT_CONFIG}: {field}: {len(patterns)} patterns; at most {_MOST_PATTERNS}")
    for text, value in patterns.items():
        with _naming(field, text):
            yield SuffixPattern(text, budget), value


def _matcher(field: str, names: str | list[str], budget: Budget) -> Pattern | frozenset[str]:
    if isinstance(names, list):
        return frozenset(names)
    if not names or (field == "target_modules" and names.lower() == "all-linear"):
        return frozenset()
    with _naming(field, names):
        return Pattern(names, budget)


def _matches(matcher: Pattern | frozenset[str], path: str) -> bool:
    if isinstance(matcher, Pattern):
        return matcher.matches(path)
    parts = path.split(".")
    return bool(matcher) and any(".".join(parts[begin:]) in matcher for begin in range(len(parts)))


def _is_off(name: str, value: object) -> bool:
    # PEFT takes an empty object as the default settings of a method, which turns it on; these few it leaves off.
    return value is None or value is False or (name in _OFF_IF_EMPTY and value in ({}, []))


def _refuse(name: str, value: object, reason: str) -> None:
    raise AdapterError(f"{PEFT_CONFIG}: {name}: {quoted(value)}: {reason}")


def _check_start(value: object) -> None:
    """Ways to begin that change the base model, or the way LoRA computes, do so again whenever PEFT loads them."""
    if not (value is None or isinstance(value, bool) or (isinstance(value, str) and value.lower() in _PLAIN_STARTS)):
        _refuse("init_lora_weights", value, "changes the base model; convert it to plain LoRA when saving")


def peft_config(fields: dict[str, Any]) -> PeftConfig:
    """Validate ``adapter_config.json``. Raises AdapterError, naming field and value, for what is not served."""
    if fields.get("peft_type") != "LORA":
        _refuse("peft_type", fields.get("peft_type"), "only LORA is served")
    if fields.get("bias", "none") not in (None, "none"):
        _refuse("bias", fields["bias"], "trained biases are not served; train with bias: none")
    if fields.get("fan_in_fan_out"):
        _refuse("fan_in_fan_out", fields["fan_in_fan_out"], "transposed base weights are not served")
    _check_start(fields.get("init_lora_weights"))
    known = set(PeftConfig.model_fields)
    ignored = _WITHOUT_EFFECT | {"peft_type", "bias", "fan_in_fan_out", "init_lora_weights"}
    for name, value in fields.items():
        if name not in known | ignored and not _is_off(name, value):
            _refuse(quoted(name), value, _REASONS.get(name, "is not supported"))
    try:
        config = PeftConfig.model_validate({k: v for k, v in fields.items() if k in known and v is not None})
    except ValidationError as error:
        raise AdapterError(f"{PEFT_CONFIG}: {first_problem(error)}") from None
    for field in ("modules_to_save", "layers_pattern"):
        names = getattr(config, field)
        for name in [names] if isinstance(names, str) else names:
            if not _NAME.fullmatch(name) and (name or field == "modules_to_save"):
                _refuse(field, name, "is not the name of a module")
    if isinstance(config.target_modules, str) and (config.layers_to_transform != [] or config.layers_pattern):
        _refuse("layers_to_transform", config.layers_to_transform, "goes with a list of target_modules only")
    return config
