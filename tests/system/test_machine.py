"""Limits of control groups, from trees as versions 1 and 2 and containers show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ift_serve.system import machine
from ift_serve.system.machine import _memory, cpu_quotas

MIB = 2**20


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def proc(root: Path, groups: str, mounts: list[str]) -> tuple[Path, Path]:
    tree(root, {"cgroup": groups, "mountinfo": "\n".join(mounts)})
    return root / "cgroup", root / "mountinfo"


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "physical_memory", lambda: 1 << 40)


def test_version_2_with_nested_groups(tmp_path: Path) -> None:
    tree(
        tmp_path / "fs",
        {
            "a/memory.max": str(900 * MIB),
            "a/memory.current": str(300 * MIB),
            "a/memory.stat": f"anon 5\ninactive_file {100 * MIB}",
            "a/b/memory.max": "max",
            "a/b/memory.high": str(800 * MIB),
            "a/b/memory.current": str(10 * MIB),
            "a/b/memory.stat": "",
            "a/cpu.max": "150000 100000",
            "a/b/cpu.max": "max 100000",
        },
    )
    where = proc(tmp_path, "0::/a/b", [f"30 20 0:26 / {tmp_path}/fs rw - cgroup2 cgroup2 rw"])
    assert sorted(_memory(*where)) == [(800 * MIB, 10 * MIB), (900 * MIB, 200 * MIB)]
    assert cpu_quotas(*where) == [1.5]


def test_version_1_and_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    tree(
        tmp_path / "memory",
        {
            "memory.limit_in_bytes": str(512 * MIB),
            "memory.usage_in_bytes": str(64 * MIB),
            "memory.stat": "total_inactive_file 0",
        },
    )
    tree(tmp_path / "cpu", {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"})
    where = proc(
        tmp_path,
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/",
        [
            f"31 20 0:27 /docker/abc {tmp_path}/memory rw - cgroup cgroup rw,memory",
            f"32 20 0:28 /docker/abc {tmp_path}/cpu rw - cgroup cgroup rw,cpu,cpuacct",
        ],
    )
    assert _memory(*where) == [(512 * MIB, 64 * MIB)]
    assert cpu_quotas(*where) == [0.5]


def test_no_limits_and_limits_above_the_machine(tmp_path: Path) -> None:
    tree(tmp_path / "memory", {"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "1"})
    tree(tmp_path / "cpu", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"})
    mounts = [f"1 2 0:1 / {tmp_path}/{name} rw - cgroup cgroup rw,{name}" for name in ("memory", "cpu")]
    where = proc(tmp_path, "4:memory:/\n3:cpu:/", mounts)
    assert _memory(*where) == [] and cpu_quotas(*where) == []
    assert _memory(tmp_path / "none", tmp_path / "none") == []
