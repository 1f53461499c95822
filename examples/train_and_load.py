"""Trains an adapter and loads it into a running server: ``python examples/train_and_load.py ROOT [SERVER]``.

ROOT is a directory that the server was started with, ``ift-serve serve --adapter-root ROOT``. The recipe comes with the
package: from 46 examples the embedded model learns to end every answer with "Over and out". Further arguments go to
``ift-serve train``, such as ``--set trainer.epochs=20``.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from ift_serve.client import Client

NAME = "over-and-out"


def train(output: Path, more: list[str]) -> None:
    """Write the adapter's directory. Raises CalledProcessError."""
    command = ["ift-serve", "train", "style-small", "--set", f"output={output}", "--overwrite", *more]
    subprocess.run(command, check=True)


def main(root: Path, server: str, more: list[str]) -> None:
    train(root / NAME, more)
    with Client(server) as client:
        # Answers in flight finish on the version they began with; nobody notices the change.
        adapter = client.load_adapter(NAME, NAME)
        print(f"{adapter}: {', '.join(adapter.components)}, {adapter.bytes / 2**20:.1f} MiB")
        for name in ("", adapter.name):
            answer = client.generate("What is 23 + 14?", adapter=name, temperature=0)
            print(f"{answer.adapter or 'base'}: {answer.text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("server", nargs="?", default="127.0.0.1:50051")
    given, rest = parser.parse_known_args()
    main(given.root, given.server, rest)
