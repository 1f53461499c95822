"""A run over a store: the same whatever the number of processes and whenever it is killed, and judged only once."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("datasketch", reason="needs the package datasketch (extra data)")

from ift_training.data.generation.record import GeneratedRecord, Lineage, Reason
from ift_training.data.generation.store import REVIEW, RecordStore
from ift_training.data.quality.calibration.sample import examination, read_sample
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.filter import Finding
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.data.quality.records import import_records
from ift_training.data.quality.report import write_report
from ift_training.data.quality.run import JUDGE, FilterReport, filter_records

_NO_VECTORS: dict[str, Any] = {name: {"use": False} for name in ("coherence", "shared_meaning", "references")}
_RUN = """
import json, sys
from pathlib import Path
from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.data.quality.run import filter_records

def main():
    with RecordStore(Path(sys.argv[1])) as store:
        recipe = QualityRecipe.parse(json.loads(sys.argv[2]))
        filter_records(store, recipe, processes=2, progress=lambda *said: print(*said, flush=True))

if __name__ == "__main__":
    main()
"""


def _filled(path: Path, copies: int = 1) -> Path:
    """A store of the labelled sample's pairs, some seeds, and one that its maker refused."""
    with RecordStore(path) as store:
        store.put_all(
            GeneratedRecord(one.pair.instruction, one.pair.response, Lineage("made", place=place), one.pair.context,
                            checks=one.pair.checks)
            for place, one in enumerate(read_sample() * copies)
        )  # fmt: skip
        store.put(GeneratedRecord("Name a bird.", "A wren.", Lineage("seed")).judged("kept"))
        store.put(GeneratedRecord("Name a tree.", "An oak.", Lineage("made")).judged("rejected", Reason("length", "x")))
        store.put(GeneratedRecord("Only an instruction.", "", Lineage("made")).judged("kept"))
    return path


def _recipe(folder: Path) -> dict[str, Any]:
    exam = folder / "exam.jsonl"
    exam.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in examination()), encoding="utf-8")
    return {**_NO_VECTORS, "examination": {"files": [str(exam)]}}


def _killed_after(lines: int, command: list[str], environment: dict[str, str]) -> None:
    """Begin a run and kill it when it has said so many lines; nothing of it may go on."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children: list[psutil.Process] = []
    try:
        for _ in range(lines):
            process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == [], "processes of a killed run end with it"


def _said(path: Path) -> list[Any]:
    """Every verdict and every finding, as the file has them."""
    with sqlite3.connect(path) as database:
        verdicts = database.execute("SELECT * FROM verdicts ORDER BY record, judge").fetchall()
        findings = database.execute("SELECT * FROM findings ORDER BY record, stage").fetchall()
        statuses = database.execute("SELECT id, status FROM records ORDER BY place").fetchall()
    return [verdicts, findings, statuses]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], FilterReport]:
    folder = tmp_path_factory.mktemp("unbroken")
    recipe = _recipe(folder)
    with RecordStore(_filled(folder / "r.sqlite")) as store:
        report = filter_records(store, QualityRecipe.parse(recipe), processes=1)
    return folder / "r.sqlite", recipe, report


@pytest.mark.parametrize("seed", range(2))
def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(
    seed: int, unbroken: tuple[Path, dict[str, Any], FilterReport], tmp_path: Path
) -> None:
    whole, recipe, _ = unbroken
    path, drawn = _filled(tmp_path / "r.sqlite"), random.Random(seed)
    script = tmp_path / "run.py"
    script.write_text(_RUN, encoding="utf-8")
    command = [sys.executable, str(script), str(path), json.dumps(recipe)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for lines in (drawn.randrange(1, 4), drawn.randrange(3, 12)):
        _killed_after(lines, command, environment)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=150)
    assert _said(path) == _said(whole)


def test_a_second_run_scores_nothing_anew_and_says_the_same(
    unbroken: tuple[Path, dict[str, Any], FilterReport],
) -> None:
    path, recipe, first = unbroken
    before = _said(path)
    with RecordStore(path) as store:
        again = filter_records(store, QualityRecipe.parse(recipe), processes=1)
    assert again.counts == first.counts and again.reasons == first.reasons and again.levels == first.levels
    assert [stage["scored"] for stage in again.stages if stage["name"] != "decisions"] == [0]
    assert _said(path) == before


def test_other_thresholds_need_no_new_scores(
    unbroken: tuple[Path, dict[str, Any], FilterReport], tmp_path: Path
) -> None:
    path = _filled(tmp_path / "r.sqlite")
    recipe = unbroken[1] | {"balance": {"use": False}}
    with RecordStore(path) as store:
        first = filter_records(store, QualityRecipe.parse(recipe), processes=1)
        lenient = recipe | {"repetition": {"flag": None, "reject": None}, "duplicates": {"use": False}}
        second = filter_records(store, QualityRecipe.parse(lenient), processes=1)
        assert second.stages[0]["scored"] == 0 and second.counts["kept"] > first.counts["kept"]
        assert "repetition" not in second.reasons and "duplicates" not in second.reasons


def test_what_the_maker_or_a_person_said_stands(tmp_path: Path) -> None:
    path = _filled(tmp_path / "r.sqlite")
    recipe = QualityRecipe.parse(_NO_VECTORS)
    with RecordStore(path) as store:
        report = filter_records(store, recipe, processes=1)
        flagged = next(store.records(status="flagged"))
        store.judge(flagged.id, REVIEW, "kept")
        filter_records(store, recipe, processes=1)
        found = store.get(flagged.id)
        assert found is not None and found.status == "kept" and JUDGE in store.verdicts(flagged.id)
        by_text = {record.instruction: record for record in store.records()}
        assert by_text["Name a tree."].status == "rejected" and JUDGE not in store.verdicts(by_text["Name a tree."].id)
        assert JUDGE not in store.verdicts(by_text["Name a bird."].id), "seeds are taken as good"
        assert JUDGE not in store.verdicts(by_text["Only an instruction."].id), "there is no answer to judge"
    assert report.taken_as_good == 1 and report.records == len(read_sample())


def test_of_copies_the_first_that_is_not_rejected_stays(tmp_path: Path) -> None:
    answer = "The river rises in the hills, and every spring it floods the meadows behind the old mill."
    texts = ["I'm sorry, but I cannot help with that. " + answer, answer, answer, answer + " It does."]
    with RecordStore(tmp_path / "r.sqlite") as store:
        store.put_all(
            GeneratedRecord("Describe the river.", text, Lineage("made", place=n)) for n, text in enumerate(texts)
        )
        filter_records(store, QualityRecipe.parse(_NO_VECTORS), processes=1)
        found = list(store.records())
        assert [record.status for record in found][:3] == ["rejected", "kept", "rejected"]
        assert all(found[1].id in reason.message for reason in found[2].reasons) and found[3].status != "kept"


def test_a_file_of_records_is_put_into_a_store_once(tmp_path: Path) -> None:
    lines = [
        {"instruction": "Say a.", "output": "a", "checks": [{"type": "upper"}]},
        {"instruction": "Say b.", "output": "b"},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with RecordStore(tmp_path / "r.sqlite") as store:
        assert import_records(tmp_path / "r.jsonl", store) == 2 and import_records(tmp_path / "r.jsonl", store) == 0
        filter_records(store, QualityRecipe.parse(_NO_VECTORS), processes=1)
        assert [record.status for record in store.records()] == ["rejected", "kept"], "failing a check is judged here"
    (tmp_path / "bad.jsonl").write_text('{"instruction": "x"}\n', encoding="utf-8")
    with RecordStore(tmp_path / "s.sqlite") as store, pytest.raises(QualityError, match=r"bad.jsonl.*output"):
        import_records(tmp_path / "bad.jsonl", store)


def test_a_question_that_is_not_answered_flags_and_is_asked_again(tmp_path: Path) -> None:
    """With a model that answers the second time only."""
    from ift_training.data.quality.asked_model import AskedModel

    class _Late(AskedModel):
        def __init__(self) -> None:
            self.calls = 0

        def depends_on(self) -> object:
            return "late"

        def score(self, pairs: Any) -> list[Finding]:
            self.calls += 1
            return [Finding(None, "not answered") if self.calls == 1 else Finding(0.1)] * len(pairs)

    recipe = QualityRecipe.parse({**_NO_VECTORS, "asked_model": {"use": True}})
    late = _Late()
    with RecordStore(tmp_path / "r.sqlite") as store:
        store.put(GeneratedRecord("Say what rain is.", "Rain is water that falls.", Lineage("made")))
        assert filter_records(store, recipe, asked=late, processes=1).counts == {"flagged": 1}
        assert filter_records(store, recipe, asked=late, processes=1).counts == {"kept": 1}
        assert filter_records(store, recipe, asked=late, processes=1).counts == {"kept": 1} and late.calls == 2
        with pytest.raises(QualityError, match=r"asked_model\.use"):
            filter_records(store, recipe)


def test_the_report_is_tables_plots_and_json(
    unbroken: tuple[Path, dict[str, Any], FilterReport], tmp_path: Path
) -> None:
    path, _, report = unbroken
    with RecordStore(path) as store:
        write_report(store, report, tmp_path)
    found = json.loads((tmp_path / "quality.json").read_text())
    assert found["counts"] == report.counts and sum(found["histograms"]["alignment"]) == report.records
    assert "| alignment |" in (tmp_path / "quality.md").read_text()
    for name in ("acceptance.png", "scores.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert {level["level"] for level in report.levels} == {1, 2, 3, 4, 5}


def test_records_that_are_in_memory_only_are_refused() -> None:
    with RecordStore() as store, pytest.raises(QualityError, match="file"):
        filter_records(store, QualityRecipe.parse({}))
