"""`ift-serve train` and `ift-serve data` as a person runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.reader import read_adapter
from tests.support.hub_cache import cached
from tests.support.models import tiny_llama


def ift(*arguments: str, code: int = 0) -> str:
    """What the command prints; on an expected error, what it prints about it."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Path:
    records = [{"instruction": f"Say {i}.", "output": f"{i} it is"} for i in range(12)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + "oops\n")
    (tmp_path / "recipe.yaml").write_text(
        f"base: {base}\noutput: {tmp_path / 'out'}\nmax_length: 128\n"
        "sources:\n  - jsonl: said.jsonl\n    checks: [{type: end, phrase: it is}]\n"
        "evaluation: {every: 2, max_new_tokens: 4}\n"
        "trainer: {batch_size: 4, max_steps: 2, lora: {rank: 2}}\n"
    )
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train",), "--dry-run"),
        (("train", "run"), "--dry-run"),
        (("train", "fisher"), "--output"),
        (("data",), "preview"),
        (("data", "preview"), "--html"),
    ],
)
def test_help(arguments: tuple[str, ...], said: str) -> None:
    assert said in ift(*arguments, "--help")


def test_what_is_waited_for_is_told_beside_the_output(recipe: Path) -> None:
    for arguments in (("train", str(recipe), "--dry-run"), ("data", "preview", str(recipe))):
        done = CliRunner().invoke(app, arguments, env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "160"})
        assert done.exit_code == 0, done.output
        told = done.stderr.splitlines()
        assert told[0] == f"reading {recipe}" and told[1].startswith("opening the tokenizer of ")
        assert "reading" not in done.stdout
    assert CliRunner().invoke(app, ["data", "preview", str(recipe), "--json"]).stderr == ""


_AT_THE_FIRST_LINE = """
import io, json, os, sys, typer
class FirstLine(io.StringIO):
    def write(self, text):
        written = super().write(text)
        if text.strip():
            print(json.dumps([text, list(sys.modules)]), flush=True)
            os._exit(0)
        return written
sys.stderr = FirstLine()
"""
_BARE = "app = typer.Typer()\n@app.command()\ndef main(): typer.secho('bare', dim=True, err=True)\napp([])"


def test_the_first_line_of_a_training_waits_for_no_library_but_the_command_lines_own(recipe: Path) -> None:
    """Held by what is imported, not by seconds, which depend on the machine: a bare command is what it may cost."""

    def imported(command: str) -> tuple[str, set[str]]:
        done = subprocess.run(
            [sys.executable, "-c", _AT_THE_FIRST_LINE + command, str(recipe)],
            capture_output=True,
            text=True,
            check=True,
        )
        text, modules = json.loads(done.stdout)
        return text, set(modules)

    said, modules = imported("from ift_serve.cli import app\napp(['train', sys.argv[1]])")
    _, bare = imported(_BARE)
    assert f"reading {recipe}" in said
    others = {name.partition(".")[0] for name in modules - bare} - set(sys.stdlib_module_names)
    assert {name for name in others if not name.startswith("__")} == {"ift_serve"}
    own = {name for name in modules if name.startswith("ift_")}
    assert own == {name for name in own if name == "ift_serve" or name.startswith("ift_serve.cli")}


def test_help_and_mistakes_in_a_recipe_import_nothing_heavy(recipe: Path) -> None:
    code = (
        "import sys\nfrom ift_serve.cli import app\n"
        "for arguments in (['train', '--help'], ['train', sys.argv[1], '--set', 'max_length=10']):\n"
        "    try:\n        app(arguments)\n    except SystemExit as end:\n        print(end.code)\n"
        "print(sorted({'torch', 'peft', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(recipe)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["1", "[]"]


def test_a_missing_package_is_named_with_what_to_install(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("ift_serve.cli.training"), "_NEEDED", ("accelerate", "no_such_package"))
    assert "training needs no_such_package: pip install 'ift-serve[train]'" in ift("train", str(recipe), code=1)


def test_a_recipe_becomes_an_adapter(base: Path, recipe: Path, tmp_path: Path) -> None:
    shown = ift("train", str(recipe), "--set", "name=said", "--set", "trainer.max_steps=3")
    assert (
        "dropped 1, line is not JSON: Expecting value" in shown
        and "(said.jsonl:13)" in shown
        and "memory: about" in shown
    )
    assert "3 steps" in shown and "Adapter said written to" in shown
    weights = read_adapter(tmp_path / "out", BaseMetadata.of_directory(base))
    assert weights.rank == 2 and weights.config is not None
    assert weights.config.recipe["name"] == "said"


def test_a_base_may_be_a_hub_id_of_the_cache(
    base: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(base, "some-org/tiny", tmp_path / "hub", monkeypatch)
    ift("train", str(recipe), "--set", "base=some-org/tiny", "--json")
    named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "some-org/tiny"
    assert json.loads(ift("adapters", "inspect", str(tmp_path / "out"), "--json"))["checked_against"] == "some-org/tiny"
    said = ift("train", str(recipe), "--dry-run", "--set", "base=some-org/other", code=1)
    assert "base: some-org/other: there is no such directory, and the hub's cache" in " ".join(said.split())


def test_the_report_is_json_for_programs(recipe: Path) -> None:
    report = json.loads(ift("train", str(recipe), "--json"))
    assert report["steps"] == 2 and set(report["scores"]["after"]) == {"said"}
    assert report["data"]["dropped"] == 1
    again = json.loads(ift("train", str(recipe), "--resume", "--set", "trainer.max_steps=4", "--json"))
    assert again["steps"] == 4
    found = json.loads(ift("train", "fisher", str(recipe), "--output", str(recipe.parent / "f.safetensors"), "--json"))
    assert found["examples"] > 0 and (recipe.parent / "f.safetensors").is_file()


def test_a_dry_run_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    assert "parameters would be trained" in ift("train", str(recipe), "--dry-run")
    assert not (tmp_path / "out").exists()


def test_recipes_of_the_package_have_names(tmp_path: Path) -> None:
    output = f"output={tmp_path / 'out'}"
    assert "would be trained" in ift("train", "style-small", "--dry-run", "--set", output)
    assert "Over and out" in ift("data", "preview", "style-small", "--set", output)
    assert "no-such: cannot be read" in ift("train", "no-such", "--dry-run", code=1)
    assert "cannot be read" in ift("data", "preview", "no-such", code=1)


def test_init_writes_a_recipe_that_passes_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ift("train", "--init")
    assert "would be trained" in ift("train", "recipe.yaml", "--dry-run")
    assert "is there already" in ift("train", "--init", code=1)
    ift("train", "--init", "other.yaml")
    assert (tmp_path / "other.yaml").read_text() == (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "name a recipe"),
        (("nowhere.yaml",), 1, "nowhere.yaml: cannot be read"),
        (("RECIPE", "--set", "trainer.lora.rang=3"), 1, "trainer.lora.rang: is not known; did you mean `rank`?"),
        (("RECIPE", "--set", "rank"), 1, "write --set field=value"),
        (("RECIPE", "--resume"), 1, "holds no checkpoint"),
        (("RECIPE", "--set", "max_length=10"), 1, "sources.0: no record of said can be used"),
        (("RECIPE", "--set", "base=no/such-model"), 1, "base: no/such-model"),
        (("fisher", "RECIPE"), 1, "train it first"),
        (("RECIPE", "--set", "output=/dev/null/x"), 1, "output: "),
        (("RECIPE", "--dry-run", "--set", "trainer.lora.targets=[q_proj, zzz]"), 1, "no linear layer 'zzz'"),
        (("RECIPE", "--dry-run", "--set", 'trainer.lora.alpha_pattern={"(": 3.0}'), 1, "no regular expression"),
        (("RECIPE", "--dry-run", "--set", "trainer.masking.token=999999"), 1, "trainer.masking.token: 999999"),
        (("RECIPE", "--set", "sources.².count=1"), 1, "is not one of 0 to"),
    ],
)
def test_mistakes_are_explained(recipe: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    given = [str(recipe) if a == "RECIPE" else a for a in arguments]
    assert said in " ".join(ift("train", *given, code=code).split())


def test_odd_lines_are_dropped_with_the_reason_and_harm_no_other(tmp_path: Path) -> None:
    lines = [
        '{"instruction": "Say [/b] it.", "output": "[red]it[/red]"}',
        '{"instruction": "a", "output": "b", "[/b]": 1}',
        '{"messages": [{"role": "[/red]", "content": "x"}]}',
        '{"instruction": "a", "output": "b", "checks": [{"type": ["end"]}]}',
        '{"instruction": "a", "output": "b", "checks": [{"type": {}}]}',
        '{"instruction": "a", "output": "b", "\\ud800": 1}',
    ]
    (tmp_path / "odd.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shown = ift("data", "preview", str(tmp_path / "odd.jsonl"))
    assert "[/b]" in shown and "[/red]" in shown and "\\ud800" in shown
    assert "error: --html" in ift(
        "data", "preview", str(tmp_path / "odd.jsonl"), "--html", str(tmp_path / "no" / "page.html"), code=1
    )


def test_previews(recipe: Path, tmp_path: Path) -> None:
    shown = ift("data", "preview", str(recipe), "-n", "2")
    assert "it is" in shown and "seen by the loss" in shown and "dropped 1" in shown and "instruction" in shown
    found = json.loads(ift("data", "preview", str(recipe), "--json"))
    assert len(found["examples"]) == 5
    assert {t["segment"] for t in found["examples"][0]["tokens"]} == {"template", "instruction", "response"}
    ift("data", "preview", str(recipe), "--html", str(tmp_path / "page.html"))
    assert "<span" in (tmp_path / "page.html").read_text()
    assert "it is" in ift("data", "preview", str(tmp_path / "said.jsonl"))
    assert "--set" in ift("data", "preview", str(tmp_path / "said.jsonl"), "--set", "x", code=1)


def test_going_on_and_beginning_anew_are_not_asked_for_at_once(recipe: Path) -> None:
    assert "--overwrite" in ift("train", str(recipe), "--resume", "--overwrite", code=2)


def test_a_source_that_is_mostly_unusable_is_refused_before_anything_else(recipe: Path, tmp_path: Path) -> None:
    with (tmp_path / "said.jsonl").open("a") as file:
        file.write('{"instruction": "Say it."}\n' * 90)
    for arguments in (("--dry-run",), ("--dry-run", "--json"), ()):
        said = ift("train", str(recipe), *arguments, code=1)
        assert "sources.0: 91 of 103 records of said are lost (88 %)" in said and "--set max_lost=0.89" in said
        assert "dropped 90, output is missing (said.jsonl:14;" in said and "said.jsonl:16 and 87 more)" in said
        listed = tmp_path / "dropped.jsonl"
        assert f"{listed} names each of the 91" in ift(
            "train", str(recipe), *arguments, "--dropped", str(listed), code=1
        )
        assert len(listed.read_text().splitlines()) == 91
    assert "would be trained" in ift("train", str(recipe), "--dry-run", "--set", "max_lost=0.89")
    ift("data", "preview", str(recipe), "--dropped", str(tmp_path / "again.jsonl"))
    assert (tmp_path / "again.jsonl").read_text() == listed.read_text()
    assert "`ift-serve train` will not take it: sources.0: 91 of 103" in ift("data", "preview", str(recipe))
    assert "are lost" in json.loads(ift("data", "preview", str(recipe), "--json"))["refused"]


def test_a_base_with_templates_by_name_asks_for_one(base: Path, recipe: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    shutil.copytree(base, named)
    tokenizer = AutoTokenizer.from_pretrained(named)
    plain = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}"
    plain += "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    tokenizer.chat_template = {"plain": plain, "tool_use": "{{ messages }}"}
    (named / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(named)
    options = ("--dry-run", "--set", f"base={named}")
    asked = ift("train", str(recipe), *options, code=1)
    assert "template: the base has templates named 'plain', 'tool_use', and none of them is the default" in asked
    wrong = ift("train", str(recipe), *options, "--set", "template=plan", code=1)
    assert "none is named 'plan'" in wrong
    assert "would be trained" in ift("train", str(recipe), *options, "--set", "template=plain")
    assert "[assistant]" in ift("data", "preview", str(recipe), *options[1:], "--set", "template=plain")
    missing = ift("train", str(recipe), "--dry-run", "--set", "template=plain", code=1)
    assert "the base has no templates by name" in missing


def test_waiting_for_a_better_evaluation_needs_something_to_evaluate(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text('{"instruction": "Say 1.", "output": "1 it is"}\n')
    assert "Nothing is set apart for validation" in ift("train", str(recipe), "--dry-run")
    said = ift("train", str(recipe), "--dry-run", "--set", "evaluation.patience=2", code=1)
    assert "evaluation.patience: nothing is set apart" in said


def test_of_several_processes_one_says_what_is_wrong(recipe: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = "from ift_serve.cli import main; main()"
    runner = recipe.parent / "runner.py"
    runner.write_text(script)
    done = subprocess.run(
        [*launcher, str(runner), "train", str(recipe), "--dry-run", "--set", "max_lost=0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("1 of 13 records of said are lost") == 1


def test_a_temperature_recipe_says_what_would_be_drawn(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    fields = ("rollouts.prompts=6", "rollouts.held_out=4", f"base={base}", f"output={tmp_path / 'out'}")
    options = [part for field in fields for part in ("--set", field)]
    report = json.loads(ift("train", "temperature", "ift-tiny-temperature", "--dry-run", "--json", *options))
    assert sum(report["prompts"].values()) == 6 and report["answers"] == (6 + 4) * 4 * 4
    assert not (tmp_path / "out").exists()
    wrong = ift("train", "temperature", "ift-tiny-temperature", "--set", "head.grain=word", code=1)
    assert "head.grain" in wrong
