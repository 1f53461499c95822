"""`ift-serve data report`: what a store of made records holds, and where a record came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.connect import Json, fail
from ift_serve.cli.data_runs import readable_data_errors

if TYPE_CHECKING:
    from ift_training.data.generation.record import Status
    from ift_training.data.generation.store import RecordStore


def report(
    store: Annotated[
        Path, typer.Argument(help="store of `data generate` or `data evolve`", exists=True, dir_okay=False)
    ],
    record: Annotated[str | None, typer.Option(help="id of a record: show it, its reasons and its ancestors")] = None,
    output: Annotated[
        Path | None, typer.Option(help="write the records that are kept as JSON Lines", dir_okay=False)
    ] = None,
    flagged: Annotated[bool, typer.Option("--flagged", help="write flagged records too")] = False,
    seeds: Annotated[bool, typer.Option("--seeds", help="write the seeds too")] = False,
    as_json: Json = False,
) -> None:
    """Show records by step and status, reasons, tokens and minutes; or a record with its lineage; or write records."""
    with readable_data_errors():
        from ift_training.data.generation.export import export
        from ift_training.data.generation.report import GenerationReport
        from ift_training.data.generation.store import RecordStore

        with RecordStore(store) as opened:
            if record is not None:
                _show_record(opened, record, as_json=as_json)
                return
            if output is not None:
                statuses: list[Status] = ["kept", "flagged"] if flagged else ["kept"]
                written = export(opened, output, statuses, seeds=seeds)
                typer.echo(f"{written:,} records written to {output}", err=as_json)
            found = GenerationReport.of(opened)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    from rich.console import Console

    Console().print(found.table())


def _show_record(store: RecordStore, wanted: str, *, as_json: bool) -> None:
    """A record, and then every record that it was made from."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [wanted]
    while waiting:
        record_id = waiting.pop(0)
        if record_id in found:
            continue
        record = store.get(record_id)
        if record is None and found:
            # A seed that was written from a record of another store.
            found[record_id] = {"id": record_id, "elsewhere": True}
            continue
        if record is None:
            raise fail(f"{record_id}: no such record in {store.path}")
        said = {
            judge: {"status": status, "reasons": [reason.message for reason in reasons]}
            for judge, (status, reasons) in store.verdicts(record_id).items()
        }
        found[record_id] = {"id": record_id, "status": record.status, "verdicts": said, **record.content()}
        waiting += record.lineage.parents
    if as_json:
        print(json.dumps(list(found.values()), ensure_ascii=False))
        return
    for values in found.values():
        typer.echo(json.dumps(values, ensure_ascii=False, indent=2))
