"""`ift-serve data generate`: new instructions and answers from seeds, by Self-Instruct."""

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
def generate(options: ClientOptions, recipe: RecipeFile, set_: Overrides = None, as_json: Json = False) -> None:
    """Make instructions from seeds, and instances of them, by asking a server (Self-Instruct).

    Everything is kept in the recipe's store as it comes; the same command again goes on after whatever ended it.
    """
    with readable_data_errors():
        from ift_training.data.generation.self_instruct.run import SelfInstruct
        from ift_training.data.generation.settings import GenerationRecipe

        chosen = GenerationRecipe.load(packaged(recipe), set_ or [])

        async def start(store: RecordStore, servers: Servers, shown: Shown) -> None:
            await SelfInstruct(chosen, store, servers, shown).run()

        run_recipe(chosen, options, start, as_json=as_json)
