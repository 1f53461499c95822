"""The command `ift-serve`: one file a subcommand, heavy imports inside the functions that need them."""

from __future__ import annotations

import typer

from ift_serve.cli.adapter_commands import adapters
from ift_serve.cli.bench import bench
from ift_serve.cli.chat import chat
from ift_serve.cli.compile_kernels import compile_kernels
from ift_serve.cli.data import app as data
from ift_serve.cli.demo import demo
from ift_serve.cli.deploy import app as deploy
from ift_serve.cli.doctor import doctor
from ift_serve.cli.eval import app as evaluation
from ift_serve.cli.gateway import gateway, playground
from ift_serve.cli.generate import generate
from ift_serve.cli.health import health
from ift_serve.cli.serve import serve
from ift_serve.cli.top import top
from ift_serve.cli.train import app as train

app = typer.Typer(
    help="Serve instruction-tuned language models over gRPC.", no_args_is_help=True, pretty_exceptions_enable=False
)
for command in (serve, generate, chat, bench, doctor, demo, health, gateway, playground, top):
    app.command()(command)
app.command("compile")(compile_kernels)
app.add_typer(adapters, name="adapters")
app.add_typer(train, name="train")
app.add_typer(data, name="data")
app.add_typer(evaluation, name="eval")
app.add_typer(deploy, name="deploy")


def main() -> None:
    """Entry point of the console script."""
    app()
