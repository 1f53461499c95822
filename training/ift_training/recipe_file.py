"""A recipe as a YAML file: read, overridden field by field, refused by name."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from ift_serve.modeling.adapter_format.config import IFT_CONFIG


class RecipeError(ValueError):
    """A recipe that cannot be run; one line a problem, each begins with the field and says what to do."""


class RecipeFile(BaseModel):
    """What is read from such a file. ``_advice``: how to come by one, behind a semicolon.

    ``_noted``: fields beside the settings that a run notes where an adapter's directory keeps its recipe.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    _advice: ClassVar[str] = ""
    _noted: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe file; files that it names are looked for beside it. ``overrides`` are ``field.path=value``.

        ``path`` may be the ``ift_config.json`` of an adapter: then the recipe that it was trained by, whose relative
        files are those of the folder that the training was started in. Raises RecipeError.
        """
        import yaml  # type: ignore[import-untyped]

        try:
            text = path.read_text(encoding="utf-8")
            found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read: {error}{cls._advice}") from error
        except json.JSONDecodeError as error:
            raise RecipeError(f"{path}: is not JSON: {error}") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: is not YAML: {error}") from error
        folder = path.parent
        if path.name == IFT_CONFIG and isinstance(found, dict):
            found, folder = found.get("recipe"), Path()
        if not isinstance(found, dict):
            raise RecipeError(f"{path}: is not a recipe{cls._advice}")
        for override in overrides:
            apply_override(found, override)
        return cls.parse(found, folder)

    @classmethod
    def parse(cls, found: Mapping[str, Any], folder: Path = Path()) -> Self:
        """The recipe of a mapping; relative files that it names are looked for in ``folder``. Raises RecipeError."""
        try:
            recipe = cls.model_validate({name: value for name, value in found.items() if name not in cls._noted})
        except ValidationError as error:
            raise RecipeError("\n".join(_problems(cls, error.errors()))) from error
        recipe.look_in(folder)
        return recipe

    def look_in(self, folder: Path) -> None:
        """Take relative files as beside the recipe. Raises RecipeError."""


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
