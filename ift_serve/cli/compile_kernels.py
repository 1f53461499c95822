"""`ift-serve compile`: make the CPU's kernels before a first start does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from ift_serve.cli.connect import Json, fail, under_way


def compile_kernels(
    cache: Annotated[
        Path | None,
        typer.Option(
            help="directory for them; servers find it by IFT_KERNELS. Else: beside the package", file_okay=False
        ),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="that compile; else one a processor", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Compile every CPU kernel for this processor, so that no start of a server has to.

    For images and packages: what is compiled is used where nothing can be written, by every user, on processors of the
    same kind.
    """
    if cache is not None:
        os.environ["IFT_KERNELS"] = str(cache.absolute())
    under_way("reading the kernels")
    begun = time.monotonic()
    from rich.console import Console
    from rich.progress import Progress

    from ift_kernels.ahead import Compilation, is_compiled, workers
    from ift_kernels.cpu_simd.storage import DTYPES, kept_code
    from ift_serve.system.machine import processors

    place = kept_code()
    if place is None or (cache is not None and place != cache.absolute()):
        raise fail(f"{cache or 'no directory'}: cannot be written; name another with --cache")
    groups = workers()
    count = sum(map(len, groups))
    if not is_compiled(DTYPES):
        compilation = Compilation(groups, processes or processors())
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(f"compiling {count} kernels", total=count)
            done = compilation.finish(DTYPES, lambda more: progress.advance(task, more))
        if not done:
            raise fail(f"not every kernel was compiled and written to {place}")
    seconds = round(time.monotonic() - begun, 1)
    if as_json:
        print(json.dumps({"kernels": count, "directory": str(place), "seconds": seconds}))
    else:
        print(f"{count} kernels for this processor are in {place} ({seconds} s)")
