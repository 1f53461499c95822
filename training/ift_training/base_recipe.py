"""What every recipe says, whatever it trains: the base model, the data, the directory; and how its file is read."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ift_training.data.encode import LossOn
from ift_training.data.settings import SourceSettings, ValidationSettings

_NAME = re.compile(r"[\w-]+")
"""Of one of a base's chat templates, such as `tool_use`."""


class RecipeError(ValueError):
    """A recipe that cannot be run; one line a problem, each begins with the field and says what to do."""


class BaseRecipe(BaseModel):
    """The fields that every recipe has."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

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

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe file; files of records are looked for beside it. ``overrides`` are ``field.path=value``.

        Raises RecipeError.
        """
        import yaml  # type: ignore[import-untyped]

        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read: {error}; write one with `ift-serve train --init`") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: is not YAML: {error}") from error
        if not isinstance(found, dict):
            raise RecipeError(f"{path}: is not a recipe; write one with `ift-serve train --init`")
        for override in overrides:
            apply_override(found, override)
        return cls.parse(found, path.parent)

    @classmethod
    def parse(cls, found: Mapping[str, Any], folder: Path = Path()) -> Self:
        """The recipe of a mapping; relative files that it names are looked for in ``folder``. Raises RecipeError."""
        try:
            recipe = cls.model_validate(found)
        except ValidationError as error:
            raise RecipeError("\n".join(_problems(cls, error.errors()))) from error
        recipe.look_in(folder)
        return recipe

    def look_in(self, folder: Path) -> None:
        """Take relative files as beside the recipe. Raises RecipeError for a template that cannot be read."""
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


def apply_override(found: dict[str, Any], override: str) -> None:
    """Set one field of a mapping by ``a.b=value`` or ``sources.0.count=value``, in YAML. Raises RecipeError."""
    import yaml  # type: ignore[import-untyped]

    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {override}: write --set field=value, such as --set trainer.max_steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {path}: {text!r} is not a YAML value: {error}") from error
    *way, last = path.split(".")
    place: Any = found
    for name in way:
        if isinstance(place, dict) and place.get(name) is None:
            place[name] = {}
        place = place[_item(place, name, path)]
    key = _item(place, last, path)
    place[key] = value


def _item(place: Any, name: str, path: str) -> Any:
    """The key or index ``name`` of a mapping or list."""
    if isinstance(place, dict):
        return name
    if not isinstance(place, list):
        raise RecipeError(f"--set {path}: there is nothing inside the field before {name!r}")
    if not (name.isascii() and name.isdigit()) or int(name) >= len(place):
        raise RecipeError(f"--set {path}: {name!r} is not one of 0 to {len(place) - 1}")
    return int(name)


def _problems(model: type[BaseModel], errors: Sequence[Any]) -> list[str]:
    """Each field with what to do; where a field may be of several kinds, what each kind would ask."""
    found: dict[str, list[str]] = {}
    for error in errors:
        # Pydantic names the kinds of a union as if they were fields: `list[str]`, `literal['learned']`.
        where = ".".join(str(part) for part in error["loc"] if "[" not in str(part))
        found.setdefault(where, []).append(_problem(model, error))
    return [f"{where}: {'; or '.join(m)}" if where else "; ".join(m) for where, m in found.items()]


def _problem(model: type[BaseModel], error: Any) -> str:
    """What to do about one."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.6)
        message = (
            f"is not known; did you mean `{close[0]}`?" if close else f"is not known; there are {', '.join(known)}"
        )
    elif error["type"] == "missing":
        message = "is missing; give it a value"
    elif error["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {error['input']!r:.80}"
    return message


def _fields_at(model: type[BaseModel], way: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model that a path inside ``model`` leads to."""
    current: Any = model
    for part in way:
        current = _inner(current.model_fields[part].annotation) if isinstance(part, str) else current
        if current is None:
            return []
    return list(current.model_fields)


def _inner(annotation: Any) -> Any:
    """The pydantic model inside ``Model | None``, ``list[Model]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, list, tuple):
        return next((found for a in get_args(annotation) if (found := _inner(a)) is not None), None)
    return None
