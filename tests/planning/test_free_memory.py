"""The least of what the machine has free and what the limits of the control groups leave."""

from pathlib import Path

import pytest

from segkit.planning.free_memory import free_bytes, resident_bytes

GIB = 2**30


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: {16 * 2**20} kB\nMemFree: 5 kB\nMemAvailable:   {8 * 2**20} kB"}
GROUP = "sys/fs/cgroup/job/task"
IN_A_GROUP = {**MEMINFO, "proc/self/cgroup": "0::/job/task"}


def limits(folder: str, most: object, taken: int, files: int = 0) -> dict[str, object]:
    statistics = f"anon 1\nactive_file {files // 2}\ninactive_file {files - files // 2}"
    return {f"{folder}/memory.max": most, f"{folder}/memory.current": taken, f"{folder}/memory.stat": statistics}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (MEMINFO, 8 * GIB),
        ({**IN_A_GROUP, **limits(GROUP, 4 * GIB, 1 * GIB)}, 3 * GIB),
        ({**IN_A_GROUP, **limits(GROUP, "max", 1 * GIB)}, 8 * GIB),
        ({**IN_A_GROUP, **limits(GROUP, 30 * GIB, 1 * GIB)}, 8 * GIB),
        # What only caches files can be had at any time.
        ({**IN_A_GROUP, **limits(GROUP, 4 * GIB, 3 * GIB, files=2 * GIB)}, 3 * GIB),
        # A group above may leave less.
        ({**IN_A_GROUP, **limits(GROUP, 4 * GIB, 0), **limits("sys/fs/cgroup/job", 5 * GIB, 3 * GIB)}, 2 * GIB),
        # Inside a container the path is the host's, and the limit stands at the top.
        ({**IN_A_GROUP, **limits("sys/fs/cgroup", 4 * GIB, 2 * GIB)}, 2 * GIB),
        ({**IN_A_GROUP, **limits(GROUP, 1 * GIB, 2 * GIB)}, 0),
    ],
    ids=["machine", "group", "no limit", "loose limit", "cached files", "parent", "container", "over it"],
)
def test_the_least_counts(tmp_path, files, free):
    assert free_bytes("cpu", root=write(tmp_path, files)) == free


def test_version_1(tmp_path):
    folder = "sys/fs/cgroup/memory/job"
    files = {
        "proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n0::/",
        f"{folder}/memory.limit_in_bytes": 4 * GIB,
        f"{folder}/memory.usage_in_bytes": 2 * GIB,
        f"{folder}/memory.stat": f"active_file 0\ntotal_inactive_file {GIB}",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 7,
    }
    assert free_bytes("cpu", root=write(tmp_path, {**MEMINFO, **files})) == 3 * GIB


def test_other_systems_do_not_tell(tmp_path):
    assert free_bytes("cpu", root=tmp_path) is None
    assert free_bytes("mps") is None


def test_this_machine_has_some():
    free = free_bytes("cpu")
    assert free is None or 0 < free < 2**50


def test_what_this_process_holds(tmp_path):
    write(tmp_path, {"proc/self/status": "Name: python\nVmHWM:\t 3000 kB\nVmRSS:\t 2000 kB"})
    assert resident_bytes(root=tmp_path) == (2000 * 1024, 3000 * 1024)
    assert resident_bytes(root=tmp_path / "nothing") is None
    found = resident_bytes()
    if found is not None:
        assert 10**7 < found[0] <= found[1]
