"""Machine code is taken only from where nobody can write who could not change the program itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from numba import config

from ift_kernels.cpu_simd import storage


def kept() -> Path | None:
    """As a new process finds it."""
    return storage.kept_code.__wrapped__()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that is asked for and holds the kernels of this version and processor."""
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o755)
    storage.mark_complete(folder)
    monkeypatch.setenv("IFT_KERNELS", str(folder))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    return folder


@pytest.mark.parametrize("variable", ["IFT_KERNELS", "NUMBA_CACHE_DIR"])
@pytest.mark.parametrize(("mode", "who"), [(0o777, "everybody"), (0o1777, "everybody"), (0o775, "group")])
def test_a_place_that_others_can_write_to_is_passed_over_and_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, mode: int, who: str
) -> None:
    if variable == "NUMBA_CACHE_DIR":
        monkeypatch.delenv("IFT_KERNELS")
        monkeypatch.setattr(config, "CACHE_DIR", str(place))
    assert kept() == place
    os.chown(place, -1, os.getegid() if mode != 0o775 else _another_group())
    place.chmod(mode)
    assert kept() != place
    assert f"{place}: {who}" in caplog.text


def _another_group() -> int:
    """One that the package is not of."""
    own = storage._PACKAGE.stat().st_gid
    others = [group for group in (*os.getgroups(), *([own + 1] if os.geteuid() == 0 else [])) if group != own]
    if not others:
        pytest.skip("needs a second group, or root")
    return others[-1]


def test_a_place_of_another_user_is_passed_over(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid():
        pytest.skip("giving a directory away needs root")
    os.chown(place, 54321, -1)
    assert kept() != place
    assert "user 54321 can write there" in caplog.text


def test_a_place_that_is_not_there_yet_is_made_for_its_owner_alone_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFT_KERNELS", str(tmp_path / "new"))
    before = os.umask(0)
    try:
        assert kept() == tmp_path / "new"
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
