"""Generate the Python stubs in ``ift_serve/v1`` from the .proto files. Run by ``make proto``."""

from __future__ import annotations

import sys
import sysconfig
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
FILES = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("ift_serve/v1/*.proto"))


def generate(output: Path) -> None:
    """Write messages, services and their type stubs below ``output``. Raises RuntimeError if protoc refuses."""
    output.mkdir(parents=True, exist_ok=True)
    well_known = resources.files("grpc_tools") / "_proto"
    # The plugins lie beside this interpreter, whose folder need not be on PATH.
    scripts = sysconfig.get_path("scripts")
    plugins = [f"--plugin={name}={scripts}/{name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{well_known}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *plugins,
        *FILES,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its messages are above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent)
