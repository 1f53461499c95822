"""Data settings of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from ift_serve.checks import parse_checks
from ift_training.data.procedural import families
from ift_training.data.procedural.splits import Split

_OF_THE_OTHER = {"file": ("split", "count"), "procedural": ("limit", "rename", "ignore", "checks")}
"""Fields that mean nothing beside a kind of source."""


class SourceSettings(BaseModel):
    """One source: a file or directory of records, or families of procedural examples."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    file: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("file", "jsonl"),
        description="records: JSON Lines, a JSON list, CSV, Parquet, .gz of these, or a directory of such files; "
        "`jsonl` means the same",
    )
    procedural: list[str] | None = Field(
        default=None, description="names of families; `constraints` and `all` stand for groups of them"
    )
    name: str | None = Field(default=None, min_length=1, description="task name; none: the file's or the family's name")
    weight: float = Field(default=1.0, gt=0, le=1000, description="how often each record is seen an epoch; may be 0.5")
    limit: int | None = Field(default=None, ge=1, description="use the first records only")
    split: Split = Field(default="train", description="procedural: combinations to draw from")
    count: int = Field(
        default=1000, ge=1, le=100_000_000, description="procedural: examples an epoch, over all its families"
    )
    rename: dict[str, str] = Field(default_factory=dict, description="names of fields in the file to the expected ones")
    ignore: list[str] = Field(default_factory=list, description="fields of the file to pass over")
    checks: list[dict[str, Any]] = Field(default_factory=list, description="what every answer of the source must pass")

    @field_validator("procedural")
    @classmethod
    def _known(cls, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        if not names:
            raise ValueError("name at least one family")
        table = families()
        groups = {"all": list(table), "constraints": [n for n, f in table.items() if f.is_constraint]}
        chosen: list[str] = []
        for name in names:
            if name not in table and name not in groups:
                raise ValueError(f"no family {name!r}; there are constraints, all, {', '.join(table)}")
            chosen += groups.get(name, [name])
        return list(dict.fromkeys(chosen))

    @field_validator("checks")
    @classmethod
    def _checks(cls, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            parse_checks(found)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("checks")) from error
        return found

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.file is None) == (self.procedural is None):
            raise ValueError("give either `file` (of records) or `procedural` (names of families)")
        kind = "file" if self.file is not None else "procedural"
        if wrong := [name for name in _OF_THE_OTHER[kind] if name in self.model_fields_set]:
            raise ValueError(f"{wrong[0]}: means nothing beside `{kind}`; take it out")
        if self.procedural is not None and self.count < len(self.procedural):
            raise ValueError(f"count: {self.count} is less than the {len(self.procedural)} families; some had none")
        return self

    @model_serializer(mode="wrap")
    def _of_its_kind(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what means nothing beside its kind, so that a recipe that was stored is a recipe again."""
        fields: dict[str, Any] = whole(self)
        for name in _OF_THE_OTHER["file" if self.file is not None else "procedural"]:
            fields.pop(name, None)
        return fields

    @property
    def task_names(self) -> list[str]:
        """The tasks that its examples belong to."""
        if self.name:
            return [self.name]
        if self.file is not None:
            name = self.file.name.removesuffix(".gz")
            return [Path(name).stem or self.file.resolve().name or "records"]
        return list(self.procedural or ())


class ValidationSettings(BaseModel):
    """What the training never sees: a share of every file, or sources of its own."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    share: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="of every file, equal prompts together; procedural sources draw as many of the validation split",
    )
    sources: list[SourceSettings] = Field(
        default_factory=list, description="instead of a share; procedural ones draw from the validation split"
    )

    @field_validator("sources")
    @classmethod
    def _apart(cls, sources: list[SourceSettings]) -> list[SourceSettings]:
        for source in sources:
            if source.procedural is not None and "split" not in source.model_fields_set:
                source.split = "validation"
        return sources
