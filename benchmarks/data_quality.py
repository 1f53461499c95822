"""How fast records go through the filters, and what it takes of memory; JSON on the output.

    python benchmarks/data_quality.py --records 100000 --vectors 2000

Records are the labelled sample's pairs with words of their own: of usual lengths, and so alike by the hundred that most
are flagged as copies of one another, which is the hard case for duplicates. ``--vectors``: records that also go through
the filters by meaning, whose rate is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from ift_serve.checks.words import listed
from ift_training.data.generation.record import GeneratedRecord, Lineage
from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.calibration.sample import examination, read_sample
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.data.quality.run import filter_records

_WORDS = listed(
    "amber basin cedar delta ember fjord grove haven inlet jetty knoll ledge marsh north ocean quarry ridge"
)
_AT_ONCE = 1000
_SCALES = (10**6, 10**9)


def _fill(store: RecordStore, count: int) -> int:
    """Records, and the bytes of their texts."""
    rng, sample, size, batch = random.Random(0), read_sample(), 0, list[GeneratedRecord]()
    for number in range(count):
        pair = sample[number % len(sample)].pair
        own = " ".join(rng.choices(_WORDS, k=8))
        response = f"{pair.response} {own.capitalize()}, number {number}."
        batch.append(
            GeneratedRecord(f"{pair.instruction} ({own})", response, Lineage("made", place=number), pair.context)
        )
        size += len(batch[-1].asked) + len(response)
        if len(batch) == _AT_ONCE:
            store.put_all(batch)
            batch = []
    store.put_all(batch)
    return size


class _Memory:
    """The largest resident memory of this process and its children together, looked at twice a second."""

    def __init__(self) -> None:
        self.peak, self._ended = 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(0.5):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> float:
        """MiB."""
        self._ended.set()
        return round(self.peak / 2**20, 1)


def _measure(count: int, processes: int, *, vectors: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        exam = Path(folder) / "exam.jsonl"
        exam.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in examination()), encoding="utf-8")
        off = {} if vectors else {name: {"use": False} for name in ("coherence", "shared_meaning", "references")}
        recipe = QualityRecipe.parse({**off, "examination": {"files": [str(exam)]}})
        with RecordStore(Path(folder) / "r.sqlite") as store:
            size = _fill(store, count)
            memory, begun, used = _Memory(), time.monotonic(), _cpu()
            report = filter_records(store, recipe, processes=processes)
            seconds = time.monotonic() - begun
        stages = [s | {"a_second": round(s["scored"] / s["seconds"], 1)} for s in report.stages if s["seconds"]]
        return {
            "records": count, "characters_a_record": round(size / count, 1), "seconds": round(seconds, 1),
            "cpu_seconds": round(_cpu() - used, 1), "a_second": round(count / seconds, 1), "peak_mib": memory.stop(),
            "store_mib": round((Path(folder) / "r.sqlite").stat().st_size / 2**20, 1), "counts": report.counts,
            "stages": stages,
        }  # fmt: skip


def _cpu() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def _cost(found: dict[str, dict[str, Any]], processes: int) -> dict[str, dict[str, Any]]:
    """Larger sets at the measured rates, which hold since each record is looked at by itself: core hours by stage, what
    the signatures of duplicates take of memory, and the store of disk. Decisions are made in one process."""
    stages = {stage["name"]: stage for run in reversed(found.values()) for stage in run["stages"]}
    cores = {"text": processes, "vectors": os.cpu_count() or 1, "decisions": 1}
    disk = found["text"]["store_mib"] / found["text"]["records"]
    return {
        f"{scale:.0e}": {
            "core_hours": {
                name: round(scale / stage["a_second"] * cores[name] / 3600, 2) for name, stage in stages.items()
            },
            "signatures_gib": round(scale * 512 / 2**30, 1),
            "store_gib": round(scale * disk / 1024, 1),
        }
        for scale in _SCALES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--vectors", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = {"text": _measure(given.records, given.processes, vectors=False)}
    if given.vectors:
        found["text_and_vectors"] = _measure(given.vectors, given.processes, vectors=True)
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    text = json.dumps({"machine": machine, "runs": found, "cost": _cost(found, given.processes)}, indent=1)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
