"""Where things are kept between starts: the first place that works, and only where nobody else can write."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest

from ift_kernels.cache_directory import cache_directory

_USELESS = "/dev/null/nowhere"  # not even the superuser can make a directory there


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """All four places, in the order they are tried; a test takes away what it wants to be missing."""
    found = {name: tmp_path / name for name in ("own", "shared", "home", "temporary")}
    found["temporary"].mkdir()
    monkeypatch.setenv("IFT_CACHE_DIR", str(found["own"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(found["shared"]))
    monkeypatch.setenv("HOME", str(found["home"]))
    monkeypatch.setattr(tempfile, "tempdir", str(found["temporary"]))
    return found


def test_the_places_are_tried_in_order(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory("values") == places["own"] / "values"
    monkeypatch.delenv("IFT_CACHE_DIR")
    assert cache_directory("values") == places["shared"] / "ift-serve/values"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the XDG specification says to ignore
    assert cache_directory("values") == places["home"] / ".cache/ift-serve/values"
    monkeypatch.setenv("HOME", _USELESS)
    assert cache_directory("values") == places["temporary"] / f"ift-serve-{os.geteuid()}/values"
    monkeypatch.setattr(tempfile, "tempdir", _USELESS)
    assert cache_directory("values") is None


def test_it_can_be_written_and_is_closed_to_others() -> None:
    found = cache_directory("values")
    assert found is not None
    (found / "file").write_text("kept")
    assert found.stat().st_mode & 0o077 == 0
    assert cache_directory("values") == found


def test_a_place_asked_for_that_does_not_work_is_named(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", _USELESS)
    with caplog.at_level(logging.WARNING):
        assert cache_directory("values") == places["shared"] / "ift-serve/values"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "/dev/null" in caplog.text


@pytest.mark.parametrize("how", ["others may write", "a link", "a file"])
def test_what_is_not_private_is_passed_over(places: dict[str, Path], tmp_path: Path, how: str) -> None:
    directory = places["own"] / "values"
    places["own"].mkdir()
    if how == "others may write":
        directory.mkdir()
        directory.chmod(0o777)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir()
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.write_text("in the way")
    assert cache_directory("values") == places["shared"] / "ift-serve/values"


def test_anothers_directory_for_temporary_files_is_not_trusted(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", _USELESS)
    monkeypatch.setenv("XDG_CACHE_HOME", _USELESS)
    monkeypatch.setenv("HOME", _USELESS)
    (tmp_path / "elsewhere").mkdir()
    (places["temporary"] / f"ift-serve-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    assert cache_directory("values") is None
    assert list((tmp_path / "elsewhere").iterdir()) == []
