"""`ift-serve data evolve`: records made harder, varied and multiplied, by Evol-Instruct and by checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ift_serve.cli.connect import ClientOptions, Json, connected
from ift_serve.cli.data_runs import Overrides, RecipeFile, readable_data_errors, run_recipe
from ift_serve.cli.training import packaged

if TYPE_CHECKING:
    from ift_training.data.generation.calls import Servers
    from ift_training.data.generation.run import Shown
    from ift_training.data.generation.store import RecordStore


@connected
def evolve(options: ClientOptions, recipe: RecipeFile, set_: Overrides = None, as_json: Json = False) -> None:
    """Evolve records by asking a server (Evol-Instruct), with requirements that programs judge.

    Everything is kept in the recipe's store as it comes; the same command again goes on after whatever ended it.
    """
    with readable_data_errors():
        from ift_training.data.generation.evolve.run import Evolution
        from ift_training.data.generation.settings import EvolutionRecipe

        chosen = EvolutionRecipe.load(packaged(recipe), set_ or [])

        async def start(store: RecordStore, servers: Servers, shown: Shown) -> None:
            await Evolution(chosen, store, servers, shown).run()

        run_recipe(chosen, options, start, as_json=as_json)
