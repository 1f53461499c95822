"""How data is made, as recipes say it: who is asked and how, what is let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_training.data.generation.evolve.requirements import NAMES
from ift_training.recipe_file import RecipeFile

Operation = Literal[
    "constraint", "deepen", "concretise", "reasoning", "input", "breadth", "verifiable", "variation", "dialogue",
    "rationale", "translate",
]  # fmt: skip
_USUAL_OPERATIONS: tuple[Operation, ...] = ("constraint", "deepen", "concretise", "reasoning", "input", "breadth")
_KEYWORDS = ("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw",
             "plot", "go to")  # fmt: skip
"""What a model of text cannot do (Wang et al. 2023, section 2.2, and their code)."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Role(_Settings):
    """Who answers, and how answers are drawn. ``_usual``: settings of the draw where the recipe says nothing."""

    _usual: ClassVar[dict[str, Any]] = {"temperature": 0.7, "max_new_tokens": 512}

    server: str = Field(default="", description="host:port of a server of its own; none: the command's")
    adapter: str = Field(default="", description="name or name@version; none: the base model")
    style: Literal["chat", "text"] = Field(
        default="chat", description="whether prompts are sent as instructions or as raw text to go on with"
    )
    decoding: dict[str, Any] = Field(
        default_factory=dict, validate_default=True, description="settings of the draw over the usual ones"
    )

    @field_validator("decoding")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "adapter" in given:
            raise ValueError("adapter: is a field of the role itself")
        DecodingSettings.read(given)
        return cls._usual | given


class InstructionWriter(Role):
    """Goes on with a numbered list, as drawn in the published code."""

    _usual: ClassVar[dict[str, Any]] = {
        "temperature": 0.7, "top_p": 0.5, "presence_penalty": 2.0, "max_new_tokens": 1024,
        "until": ["\n\n", "\n16", "16.", "16 ."],
    }  # fmt: skip

    style: Literal["chat", "text"] = "text"


class InstanceWriter(Role):
    """Goes on with examples of a task, as drawn in the published code."""

    _usual: ClassVar[dict[str, Any]] = {
        "temperature": 0.0, "presence_penalty": 1.5, "max_new_tokens": 350, "until": ["Task:"],
    }  # fmt: skip

    style: Literal["chat", "text"] = "text"


class Classifier(Role):
    """Goes on with a word, as drawn in the published code."""

    _usual: ClassVar[dict[str, Any]] = {"temperature": 0.0, "max_new_tokens": 3, "until": ["\n", "Task"]}

    style: Literal["chat", "text"] = "text"


class YesNoJudge(Role):
    """Answers with yes or no."""

    _usual: ClassVar[dict[str, Any]] = {"temperature": 0.0, "max_new_tokens": 4}


class InstructionSettings(_Settings):
    """New instructions from examples of the pool."""

    speaker: InstructionWriter = Field(default_factory=InstructionWriter)
    human: int = Field(default=6, ge=1, le=64, description="seeds that a prompt shows")
    machine: int = Field(
        default=2, ge=0, le=64, description="instructions of earlier prompts that it shows; seeds where there are none"
    )
    similarity: float = Field(
        default=0.7, gt=0, lt=1, description="ROUGE-L with any of the pool, above which an instruction is rejected"
    )
    shortest: int = Field(default=4, ge=1, description="words of an instruction at least")
    longest: int = Field(default=150, ge=1, description="words of an instruction at most")
    keywords: list[str] = Field(default_factory=lambda: list(_KEYWORDS), description="words that reject an instruction")
    beginnings: list[str] = Field(
        default_factory=lambda: ["Write a program"], description="beginnings that reject an instruction"
    )
    keep_cut: bool = Field(
        default=False,
        description="keep the whole instructions of an answer that was cut off at its length; the published rule drops "
        "the answer",
    )


class InstanceSettings(_Settings):
    """Inputs and outputs for an instruction."""

    speaker: InstanceWriter = Field(default_factory=InstanceWriter)
    most: int = Field(default=5, ge=1, le=100, description="instances of an instruction at most, drawn at random")


class VerificationSettings(_Settings):
    """The last look at a record."""

    by_model: bool = Field(default=True, description="ask whether the answer does what the task asks; no rejects it")
    speaker: YesNoJudge = Field(default_factory=YesNoJudge)


class RunRecipe(RecipeFile):
    """What every run has."""

    seeds: Path = Field(description="records to begin with, in any layout that is trained on")
    store: Path = Field(description="SQLite file of records and answers; a second run goes on with it")
    output: Path | None = Field(default=None, description="JSON Lines of what is kept, written at the end")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of everything random")
    prompts: Path | None = Field(default=None, description="directory of prompts in place of the package's")
    in_flight: int = Field(
        default=64, ge=1, le=4096, description="requests at once; what a prompt shows depends on it, so it is part of "
        "the recipe"
    )  # fmt: skip
    timeout: float = Field(default=300.0, gt=0, description="seconds for a request")

    def look_in(self, folder: Path) -> None:
        """Seeds and prompts are beside the recipe; what is written is where the command runs."""
        self.seeds = folder / self.seeds.expanduser()
        self.prompts = None if self.prompts is None else folder / self.prompts.expanduser()


class GenerationRecipe(RunRecipe):
    """Self-Instruct (Wang et al. 2023, arXiv 2212.10560)."""

    tries: int = Field(default=1000, ge=1, description="prompts for instructions at most")
    wanted: int | None = Field(default=None, ge=1, description="stop at so many new instructions")
    instructions: InstructionSettings = Field(default_factory=InstructionSettings)
    classification: Classifier = Field(default_factory=Classifier)
    instances: InstanceSettings = Field(default_factory=InstanceSettings)
    verification: VerificationSettings = Field(default_factory=VerificationSettings)


class EliminationSettings(_Settings):
    """What an evolution is dropped for (Xu et al. 2023, section 3.2)."""

    same: bool = Field(default=True, description="ask whether the new task says anything new; of tasks of one text, "
                       "no question is needed")  # fmt: skip
    short_words: int = Field(default=80, ge=0, description="an answer that says sorry in fewer words is confused")
    similarity: float = Field(default=0.95, gt=0, lt=1, description="ROUGE-L with its parent that says nothing new")
    longest: int = Field(default=300, ge=1, description="words of an instruction at most")


class VerifiableSettings(_Settings):
    """Requirements that a program can judge."""

    checks: list[str] = Field(default_factory=list, description="types to draw from; none: all that have words")
    samples: int = Field(default=4, ge=1, le=256, description="answers that are drawn until one passes")
    variations: int = Field(default=3, ge=1, le=256, description="different requirements on one record at once")

    @field_validator("checks")
    @classmethod
    def _known(cls, given: list[str]) -> list[str]:
        if unknown := sorted(set(given) - set(NAMES)):
            raise ValueError(f"no requirement {unknown[0]!r}; there are {', '.join(NAMES)}")
        return given


class BreadthSettings(_Settings):
    """Which parts of the pool are under-represented."""

    smallest: int = Field(default=5, ge=2, description="records of a cluster at least (HDBSCAN)")
    model: Path | None = Field(default=None, description="directory of a sentence model; none: the package's")


class EvolutionRecipe(RunRecipe):
    """Evol-Instruct (Xu et al. 2023, arXiv 2304.12244), with requirements that programs judge."""

    operations: dict[Operation, float] = Field(
        default_factory=lambda: dict.fromkeys(_USUAL_OPERATIONS, 1.0),
        description="what may be done to a record, with its weight",
    )
    rounds: int = Field(default=4, ge=1, le=1000, description="times that every record of the pool is evolved")
    wanted: int | None = Field(default=None, ge=1, description="stop at so many kept records")
    retries: int = Field(default=2, ge=0, description="failures in a row after which a record is given up")
    languages: list[str] = Field(default_factory=lambda: ["German", "French", "Spanish"], min_length=1)
    writer: Role = Field(default_factory=Role)
    answerer: Role = Field(default_factory=Role)
    judge: YesNoJudge = Field(default_factory=YesNoJudge)
    elimination: EliminationSettings = Field(default_factory=EliminationSettings)
    verifiable: VerifiableSettings = Field(default_factory=VerifiableSettings)
    breadth: BreadthSettings = Field(default_factory=BreadthSettings)

    @field_validator("answerer")
    @classmethod
    def _hears_all(cls, role: Role) -> Role:
        if role.style == "text":
            raise ValueError("style: answers are asked for with context and history, which raw text has no place for")
        return role

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if wrong := next((name for name, weight in self.operations.items() if weight < 0), None):
            raise ValueError(f"operations.{wrong}: a weight is not below 0")
        if not any(self.operations.values()):
            raise ValueError("operations: give one of them a weight above 0")
        return self
