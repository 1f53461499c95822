"""The files of an adapter directory, and ``ift_config.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
IFT_CONFIG, IFT_WEIGHTS = "ift_config.json", "ift_extras.safetensors"
CARD = "README.md"
FORMAT_VERSION: Literal[1] = 1


class BaseReference(BaseModel):
    """The model an adapter was made for. ``fingerprint``: see ``checkpoint.fingerprint.model_fingerprint``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str = Field(min_length=1, max_length=128)
    architecture: str = Field(min_length=1, max_length=128)
    shape: BaseShape


_MOST_NAMES, _LONGEST_NAME = 1024, 200
"""What is told of an adapter's training; the directory comes from strangers."""


class IftConfig(BaseModel):
    """``ift_config.json``.

    ``template_fingerprint``: of the chat template that it was trained with; ``template``: its text (jinja) where it is
    not the base model's own. ``calibration_temperature``: what logits are divided by before confidences are read off
    them (Guo et al. 2017), and nothing else; None where none was fitted, or it made them no better. ``end_ids``: tokens
    that end an answer, beside those of the base model. ``recipe`` and ``scores`` are for people; of these only
    :attr:`trained_on` is read back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = FORMAT_VERSION
    base: BaseReference
    components: ComponentsConfig = ComponentsConfig()
    template_fingerprint: str = Field(default="", max_length=128)
    template: str = Field(default="", max_length=1 << 16)
    calibration_temperature: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    end_ids: list[Annotated[int, Field(ge=0, lt=1 << 31)]] = Field(default=[], max_length=64)
    recipe: dict[str, Any] = {}
    scores: dict[str, Any] = {}

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Families and checks that it was trained on, as ``family:case``; nothing where the recipe does not say."""
        found = self.recipe.get("trained_on")
        if not isinstance(found, list):
            return ()
        return tuple(name for name in found[:_MOST_NAMES] if isinstance(name, str) and len(name) <= _LONGEST_NAME)


def ift_config(fields: dict[str, Any]) -> IftConfig:
    """Validate ``ift_config.json``. Raises AdapterError, naming the field."""
    version = fields.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise AdapterError(
            f"{IFT_CONFIG}: format_version: {quoted(version)}; this version of ift-serve reads {FORMAT_VERSION}"
        )
    try:
        return IftConfig.model_validate(fields)
    except ValidationError as error:
        raise AdapterError(f"{IFT_CONFIG}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first field that is wrong, its value and why."""
    first = error.errors(include_url=False)[0]
    place = quoted(".".join(map(str, first["loc"])))
    return f"{place}: {quoted(first['input'])}: {quoted(first['msg'])}"
