"""Base class of recipes: the base model, the data, the output directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ift_training.data.encode import LossOn
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.trained_on import TRAINED_ON
from ift_training.recipe_file import RecipeError, RecipeFile, apply_override

__all__ = ["BaseRecipe", "RecipeError", "apply_override"]

_NAME = re.compile(r"[\w-]+")
"""Of one of a base's chat templates, such as `tool_use`."""


class BaseRecipe(RecipeFile):
    """The fields that every recipe has."""

    _advice: ClassVar[str] = "; write one with `ift-serve train --init`"
    _noted: ClassVar[frozenset[str]] = frozenset({TRAINED_ON})

    base: str = Field(
        default="ift-tiny", min_length=1, description="directory or hub id; ift-tiny comes with the package"
    )
    output: Path = Field(description="directory of the adapter; must be new or empty, or hold an earlier run of it")
    name: str = Field(
        default="adapter", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="name of the adapter, as served"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of everything random")
    max_length: int = Field(default=512, ge=8, description="tokens of prompt and answer; longer records are dropped")
    template: str | None = Field(
        default=None,
        min_length=1,
        description="chat template in place of the base model's: jinja text, a file, or the name of one of the base's",
    )
    parse_special_tokens: bool = Field(
        default=False,
        description="make control tokens of those that are typed into records, as a server with --parse-special-tokens "
        "does; otherwise they are text",
    )
    loss_on: LossOn = Field(
        default="responses",
        description="tokens that the loss sees: every assistant turn, the last `response`, or `all` tokens",
    )
    sources: list[SourceSettings] = Field(min_length=1, description="where the examples come from")
    max_lost: float = Field(
        default=0.5, ge=0, le=1, description="share of a source's records that may be unusable or too long"
    )
    validation: ValidationSettings = Field(default_factory=ValidationSettings, description="what training never sees")

    @field_validator("output")
    @classmethod
    def _not_a_file(cls, path: Path) -> Path:
        if path.is_file():
            raise ValueError(f"{path} is a file; name a directory")
        return path

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [name for source in self.sources for name in source.task_names if source.file]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"sources: two files make the task {doubled!r}; give one of them another `name`")
        return self

    @model_validator(mode="after")
    def _held_out_files_are_others(self) -> Self:
        trained = {source.file for source in self.sources if source.file is not None}
        for index, source in enumerate(self.validation.sources):
            if source.file in trained:
                raise ValueError(
                    f"validation.sources.{index}.file: {source.file} is trained on; use validation.share to keep a "
                    "part of it back"
                )
        return self

    @model_validator(mode="after")
    def _families_are_validated_apart(self) -> Self:
        trained = {(name, source.split) for source in self.sources for name in source.procedural or ()}
        held = [("validation.sources", i, s, s.split) for i, s in enumerate(self.validation.sources)]
        if self.validation.share and not held:
            held = [("sources", i, s, "validation") for i, s in enumerate(self.sources)]
        for where, index, source, split in held:
            for name in source.procedural or ():
                if (name, split) in trained:
                    raise ValueError(
                        f"{where}.{index}.split: {name} would be trained and validated on the same examples, of the "
                        f"split {split}; choose another split, or validate on other sources"
                    )
        return self

    @property
    def tasks(self) -> list[str]:
        """Names of all tasks, in the order of the sources."""
        return list(dict.fromkeys(name for source in self.sources for name in source.task_names))

    def look_in(self, folder: Path) -> None:
        """See :class:`RecipeFile`. Raises RecipeError for a template that cannot be read."""
        for source in (*self.sources, *self.validation.sources):
            if source.file is not None:
                source.file = folder / source.file.expanduser()
        if self.template is not None and "{" not in self.template:
            file = folder / self.template
            if not file.exists() and _NAME.fullmatch(self.template):
                return
            try:
                self.template = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"template: {file} cannot be read, and is no jinja text: {error}") from error
            if "{" not in self.template:
                raise RecipeError(f"template: {file} holds no jinja text")

    def base_directory(self) -> str:
        """Where the base model is, of a hub id in the local cache. Raises RecipeError."""
        from ift_serve.embedded import EMBEDDED_NAME, model_path
        from ift_serve.modeling.checkpoint.location import NoModelError, base_directory

        try:
            return str(model_path() if self.base == EMBEDDED_NAME else base_directory(self.base))
        except NoModelError as error:
            raise RecipeError(f"base: {error}") from error

    @property
    def hub_id(self) -> str | None:
        """The base as the hub knows it; None for a directory or the embedded model."""
        from ift_serve.embedded import EMBEDDED_NAME

        return None if self.base == EMBEDDED_NAME or Path(self.base).is_dir() else self.base
