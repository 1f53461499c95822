"""Fisher information of a trained adapter: the file that a later training with EWC reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ift_training.data.lost import check_lost
from ift_training.fit import check_fits, empty_base
from ift_training.prepare import open_encoder, prepare_recipe
from ift_training.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from ift_training.data.mixture import ExampleDataset
    from ift_training.data.selection import TrainingData
    from ift_training.model.instruction_model import InstructionModel


def write_fisher(recipe: Recipe, output: Path, *, examples: int, progress: bool = True) -> dict[str, Any]:
    """Measure the adapter at ``recipe.output`` on its own training data and write ``output``.

    Gives the numbers of examples and weights. Raises RecipeError, SourceError.
    """
    from ift_serve.modeling.adapter_format.config import IFT_WEIGHTS, PEFT_WEIGHTS

    if not any((recipe.output / name).exists() for name in (PEFT_WEIGHTS, IFT_WEIGHTS)):
        raise RecipeError(f"output: {recipe.output} holds no adapter yet; train it first: ift-serve train RECIPE")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise RecipeError(f"--output {output}: cannot be written: {error.strerror}") from error
    check_fits(recipe, empty_base(recipe))
    data = prepare_recipe(recipe, open_encoder(recipe))
    console = Console(quiet=not progress)
    console.print(data.report.table())
    check_lost(data.report, recipe.max_lost)
    return _measure(recipe, data, output, min(examples, len(data.train)), progress=progress)


def _measure(recipe: Recipe, data: TrainingData, output: Path, count: int, *, progress: bool) -> dict[str, Any]:
    from rich.progress import track

    from ift_training import checkpoint
    from ift_training.build import build_recipe
    from ift_training.losses.ewc import fisher_information, save_fisher

    built = build_recipe(recipe, data.tasks)
    try:
        checkpoint.place(built.model, checkpoint.read(built.model, recipe.output, recipe.trainer))
    except ValueError as error:
        raise RecipeError(str(error)) from error
    built.model.eval()
    places = track(range(count), "measuring", console=Console(quiet=not progress), transient=True)
    found = fisher_information(built.model, _losses(built.model, data.train, recipe, places))
    save_fisher(output, built.model, found, checkpoint.metadata(built.model, recipe.trainer))
    return {"output": str(output), "examples": count, "parameters": sum(f.numel() for f in found.values())}


def _losses(
    model: InstructionModel, dataset: ExampleDataset, recipe: Recipe, places: Any
) -> Iterator[Callable[[], Tensor]]:
    """One example at a time, nothing hidden from it."""
    from ift_training.collator import Collator
    from ift_training.settings import MaskingSettings

    collate = Collator(
        padding=0, mask_token=0, masking=MaskingSettings(), packing=False, max_length=recipe.max_length, judges=False
    )
    for place in places:
        batch = collate([dataset[place]])

        def loss(batch: dict[str, Tensor] = batch) -> Tensor:
            total: Tensor = model(**batch).next_token.sum()
            return total

        yield loss
