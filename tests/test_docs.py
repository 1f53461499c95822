"""The pages of docs/: in the nav, linked rightly, and naming only what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import adapter_states
from docs.external_requests import in_page, in_site

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

FOREIGN = DOCS / "models.md"
"""Names what other libraries have."""

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FOLDERS = ("ift_serve", "kernels", "training", "protos", "tests", "docs", "benchmarks", "examples")
_PATH = re.compile(rf"(?<![\w./@<-])((?:{'|'.join(_FOLDERS)})/[\w./*-]*\w/?)")
_CODE = re.compile(r"`([^`\n]+)`")
_NAME = re.compile(r"_?[A-Za-z]\w*_\w+|_[a-z]\w*|[A-Z][a-z]+[A-Z]\w*")
_FILE_NAME = re.compile(r"[a-z]\w*\.(?:py|proto|svg)")


def _slug(heading: str) -> str:
    """The anchor of a heading, as Markdown's toc extension makes it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def _without_blocks(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@cache
def _names() -> frozenset[str]:
    """Names of all files of the repository's own folders."""
    return frozenset(path.name for folder in _FOLDERS for path in (ROOT / folder).rglob("*.*"))


@cache
def _words() -> frozenset[str]:
    """Words of all sources."""
    kinds = {".py", ".proto", ".toml", ".yml", ".json"}
    files = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    small = [path for path in files if path.stat().st_size < 1_000_000]
    return frozenset(word for path in small for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))


def broken_links(text: str, page: Path) -> Iterator[str]:
    """Links that lead nowhere; those to other hosts are not followed."""
    for target in _LINK.findall(_without_blocks(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            yield target
        elif anchor and file.suffix == ".md":
            read = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in {_slug(heading) for heading in _HEADING.findall(_without_blocks(read))}:
                yield target


def missing_paths(text: str) -> Iterator[str]:
    """Paths from the repository's root, and bare names of source files, that are not there."""
    for path in _PATH.findall(text):
        if not (any(ROOT.glob(path.rstrip("/"))) if "*" in path else (ROOT / path).exists()):
            yield path
    for code in _CODE.findall(_without_blocks(text)):
        if _FILE_NAME.fullmatch(code) and code not in _names():
            yield code


def unknown_names(text: str) -> Iterator[str]:
    """Names in code type, of functions, classes, fields, metrics and options, that no source has."""
    for code in _CODE.findall(_without_blocks(text)):
        name = re.sub(r"\{.*\}$", "", code).removesuffix("_total")
        option = re.match(r"--(?:no-)?([a-z-]+)", code)
        if option is not None:
            name = option[1].replace("-", "_")
        is_known = name in _words() or (option is not None and f"no_{name}" in _words())
        if (option or _NAME.fullmatch(name)) and not is_known:
            yield code


def _nav(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else _nav(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_and_names_only_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert list(broken_links(text, page)) == []
    assert list(missing_paths(text)) == []
    assert page == FOREIGN or list(unknown_names(text)) == []


_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_LINE = re.compile(r"^\| [^|]+ \| (?P<code>[^|]+) \| (?P<tests>`tests/[^|]+) \|$", re.MULTILINE)


def test_every_line_of_defence_is_held_by_code_and_by_tests_that_are_there() -> None:
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    lines = list(_LINE.finditer(text))
    assert len(lines) > 30
    for line in lines:
        named = _TEST.findall(line["tests"])
        assert len(named) == line["tests"].count("`") // 2, line["tests"]
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), name
        for path in re.findall(r"`([^`]+)`", line["code"]):
            assert (ROOT / path).is_file(), path


def test_the_nav_has_every_page_once() -> None:
    nav = list(_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(nav) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_map_has_every_room() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    house = text.split("## The house")[1].split("```")[1]
    rooms = {
        path.parent
        for folder in (ROOT / "ift_serve", ROOT / "ift_serve" / "engine", ROOT / "ift_serve" / "modeling")
        for path in folder.glob("*/__init__.py")
    }
    assert {room.name for room in rooms if f"{room.name}/" not in house} == set()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](nowhere.md)", "nowhere.md"),
        ("[a](architecture.md#no-such-part)", "architecture.md#no-such-part"),
        ("# One\n[a](#two)", "#two"),
        ("![a](nothing.svg)", "nothing.svg"),
    ],
)
def test_a_wrong_link_is_found(text: str, wrong: str) -> None:
    assert list(broken_links(text, DOCS / "index.md")) == [wrong]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("see `ift_serve/engine/core/soul.py`", "ift_serve/engine/core/soul.py"),
        ("```\npython benchmarks/nothing.py --json\n```", "benchmarks/nothing.py"),
        ("all of kernels/ift_kernels/a_*/api.py", "kernels/ift_kernels/a_*/api.py"),
        ("and `soul.py` beside it", "soul.py"),
    ],
)
def test_a_path_that_is_not_there_is_found(text: str, wrong: str) -> None:
    assert list(missing_paths(text)) == [wrong]


@pytest.mark.parametrize(
    "name", ["_no_such" + "_thing", "NoSuch" + "Class", "no_barrel" + "_seconds_total{code}", "--no-such" + "-option"]
)
def test_a_name_that_no_source_has_is_found(name: str) -> None:
    assert list(unknown_names(f"as `{name}` does, and `EngineCore`")) == [name]


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://host/a.js"></script>',
        '<link rel="stylesheet" href="//host/a.css">',
        '<link rel="preconnect" href="https://host">',
        '<img src="http://host/a.png">',
        "<style>@import 'https://host/a.css'</style>",
        '<p style="background: url(https://host/a.png)">',
    ],
)
def test_what_a_page_would_fetch_is_found(html: str) -> None:
    assert len(in_page(html)) == 1


def test_links_that_a_reader_follows_are_no_requests(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<a href="https://host">x</a><script src="assets/a.js"></script>')
    (tmp_path / "style.css").write_text("a { background: url(data:image/png;base64,AA) }")
    assert in_site(tmp_path) == {}
    (tmp_path / "style.css").write_text("a { background: url(https://host/a.png) }")
    assert in_site(tmp_path) == {"style.css": ["https://host/a.png"]}


def test_every_metric_is_explained() -> None:
    sources = [ROOT / "ift_serve" / "server" / name for name in ("metrics.py", "engine_metrics.py")]
    metrics = {name for path in sources for name in re.findall(r'"(ift_\w+)"', path.read_text(encoding="utf-8"))}
    explained = re.findall(
        r"`(ift_\w+?)(?:_total)?(?:\{[\w,]+\})?`", (DOCS / "operating.md").read_text(encoding="utf-8")
    )
    assert metrics
    assert metrics - set(explained) == set()


def test_the_protocol_page_is_what_the_proto_files_say(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools comes with the extra dev")
    made = tmp_path / "protocol.md"
    subprocess.run([sys.executable, DOCS / "protocol_reference.py", made], check=True)
    assert made.read_text(encoding="utf-8") == (DOCS / "protocol.md").read_text(encoding="utf-8"), "run make proto"


def test_the_adapter_states_page_has_the_transitions_of_the_code() -> None:
    text = (DOCS / "adapter-states.md").read_text(encoding="utf-8")
    assert adapter_states.page(text) == text, "run python docs/adapter_states.py"
    drawn = adapter_states.drawn((DOCS / "adapter-states.svg").read_text(encoding="utf-8"))
    assert len(drawn) == len(set(drawn)) and set(drawn) == adapter_states.arrows(), "draw docs/adapter-states.svg anew"


def test_the_protocol_page_has_every_message_field_and_rpc() -> None:
    from ift_serve.v1 import adapter_pb2, inference_pb2, model_pb2

    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    for file in (adapter_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR, model_pb2.DESCRIPTOR):
        for name, message in file.message_types_by_name.items():
            section = text.split(f"\n### {name}\n")[1].split("\n### ")[0]
            for field in message.fields:
                assert re.search(rf"^\| `{field.name}` \| .+ \| {field.number} \| \S.* \|$", section, re.MULTILINE)
        for service in file.services_by_name.values():
            section = text.split(f"\n### {service.name}\n")[1].split("\n### ")[0]
            assert all(f"| `{method.name}` |" in section for method in service.methods)
