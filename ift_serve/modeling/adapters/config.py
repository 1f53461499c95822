"""The two configuration files of an adapter directory, validated."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ift_serve.modeling.adapters.weights import AdapterError
from ift_serve.modeling.instruction.config import BaseShape, ComponentsConfig

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
IFT_CONFIG, IFT_WEIGHTS = "ift_config.json", "ift_extras.safetensors"
FORMAT_VERSION: Literal[1] = 1

_LONGEST_PATTERN = 512
_MOST_PATTERNS = 1024
_MOST_WILDCARDS = 8
_WITHOUT_EFFECT = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "megatron_config", "megatron_core", "exclude_modules", "layers_to_transform", "layers_pattern",
    "qalora_group_size", "loftq_config", "peft_type", "ensure_weight_tying",
}  # fmt: skip
_HARMLESS_INITS = (True, False, None, "gaussian", "orthogonal", "eva", "true", "false")


class BaseReference(BaseModel):
    """The model an adapter was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    architecture: str
    shape: BaseShape


class IftConfig(BaseModel):
    """``ift_config.json``. ``recipe`` and ``scores`` are for people; nothing reads them back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = FORMAT_VERSION
    base: BaseReference
    components: ComponentsConfig = ComponentsConfig()
    template_fingerprint: str = ""
    recipe: dict[str, Any] = {}
    scores: dict[str, Any] = {}


class PeftConfig(BaseModel):
    """The fields of ``adapter_config.json`` that decide what a LoRA adapter computes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(default=8, ge=1)
    lora_alpha: float = 8
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    target_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None

    def rank_of(self, path: str) -> int:
        """The rank that the configuration gives a module."""
        return self.rank_pattern.get(_matching(self.rank_pattern, path), self.r)

    def scale_of(self, path: str) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA (Kalajdzievski 2023)."""
        rank = self.rank_of(path)
        alpha = self.alpha_pattern.get(_matching(self.alpha_pattern, path), self.lora_alpha)
        return float(alpha / (rank**0.5 if self.use_rslora else rank))

    def targets(self, path: str) -> bool:
        """Whether PEFT would adapt this module."""
        if self.target_modules is None or self.target_modules == "all-linear":
            return True
        if isinstance(self.target_modules, str):
            return re.fullmatch(self.target_modules, path) is not None
        return any(path == target or path.endswith(f".{target}") for target in self.target_modules)


def _matching(patterns: dict[str, Any], path: str) -> str:
    """PEFT's rule: the first pattern that matches the end of the path from a dot on."""
    for pattern in patterns:
        if re.match(rf"(.*\.)?({pattern})$", path):
            return pattern
    return path


def _check_pattern(field: str, pattern: str) -> None:
    """Patterns come from a file that nobody vouches for: only such as cannot run for long."""
    if len(pattern) > _LONGEST_PATTERN:
        raise AdapterError(
            f"{PEFT_CONFIG}: {field}: a pattern of {len(pattern)} characters; at most {_LONGEST_PATTERN}"
        )
    wildcards = sum(pattern.count(c) for c in "*+{")
    if re.search(r"\)\s*[*+{?]", pattern) or "(?" in pattern.replace("(?:", "(") or wildcards > _MOST_WILDCARDS:
        raise AdapterError(f"{PEFT_CONFIG}: {field}: the pattern {pattern[:80]!r} repeats groups; write it out")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise AdapterError(f"{PEFT_CONFIG}: {field}: the pattern {pattern[:80]!r} is not valid: {error}") from None


def _is_default(value: Any) -> bool:
    return value is None or value is False or value == {} or value == [] or value == ""


def peft_config(fields: dict[str, Any]) -> PeftConfig:
    """The configuration that PEFT wrote. Raises AdapterError, naming the field, for what is not supported."""
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{PEFT_CONFIG}: peft_type: {kind!r} is not served; only LORA is")
    if fields.get("bias") not in (None, "none"):
        raise AdapterError(f"{PEFT_CONFIG}: bias: {fields['bias']!r} is not served; train with bias: none")
    if fields.get("init_lora_weights") not in _HARMLESS_INITS:
        raise AdapterError(
            f"{PEFT_CONFIG}: init_lora_weights: {str(fields['init_lora_weights'])[:80]!r} changes the base weights; "
            "convert the adapter to plain LoRA when saving it"
        )
    known = set(PeftConfig.model_fields)
    ignored = _WITHOUT_EFFECT | {"bias", "init_lora_weights"}
    for name, value in fields.items():
        if name not in known | ignored and not _is_default(value):
            raise AdapterError(f"{PEFT_CONFIG}: {name}: {str(value)[:80]!r} is not supported")
    try:
        config = PeftConfig.model_validate({k: v for k, v in fields.items() if k in known and v is not None})
    except ValueError as error:
        raise AdapterError(f"{PEFT_CONFIG}: {_first_problem(error)}") from None
    if config.fan_in_fan_out:
        raise AdapterError(f"{PEFT_CONFIG}: fan_in_fan_out: transposed base weights are not served")
    patterns = {"rank_pattern": list(config.rank_pattern), "alpha_pattern": list(config.alpha_pattern)}
    for field, found in patterns.items():
        if len(found) > _MOST_PATTERNS:
            raise AdapterError(f"{PEFT_CONFIG}: {field}: {len(found)} patterns; at most {_MOST_PATTERNS}")
        for pattern in found:
            _check_pattern(field, pattern)
    if isinstance(config.target_modules, str):
        _check_pattern("target_modules", config.target_modules)
    return config


def ift_config(fields: dict[str, Any]) -> IftConfig:
    """``ift_config.json``. Raises AdapterError, naming the field."""
    version = fields.get("format_version")
    if version != FORMAT_VERSION:
        raise AdapterError(f"{IFT_CONFIG}: format_version: {version!r}; this version reads {FORMAT_VERSION}")
    try:
        return IftConfig.model_validate(fields)
    except ValueError as error:
        raise AdapterError(f"{IFT_CONFIG}: {_first_problem(error)}") from None


def _first_problem(error: ValueError) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
