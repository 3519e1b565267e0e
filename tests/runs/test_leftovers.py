"""What dead processes left goes; what living ones, other machines and people made stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

from segkit.runs.leftovers import abandoned, maker, place, sweep_abandoned, temporary_beside


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_name_tells_its_maker(tmp_path: Path):
    first, second = temporary_beside(tmp_path / "a.json"), temporary_beside(tmp_path / "a.json", suffix=".trash")
    assert first.parent == tmp_path
    assert first.name.startswith(f".a.json.{place()}-{os.getpid()}-")
    assert second.suffix == ".trash"
    assert maker() != maker()


def test_only_what_dead_processes_left_is_abandoned(tmp_path: Path):
    dead = dead_pid()
    gone = [f".a.json.{place()}-{dead}-0.tmp", f".a.b.{place()}-{dead}-17.trash", f".a.json.{dead}.tmp"]
    stays = [f".a.json.{place()}-{os.getpid()}-0.tmp", f".a.json.{os.getpid()}.tmp", f".a.json.01234567-{dead}-0.tmp"]
    stays += ["a.json", ".a.json.tmp", f"a.json.{dead}.tmp", f".a.json.{dead}.new"]
    below = tmp_path / "below"
    for folder in (tmp_path, below):
        folder.mkdir(exist_ok=True)
        for name in (*gone, *stays):
            (folder / name).write_text("x")
    whole = tmp_path / f".folder.{place()}-{dead}-3.tmp"
    (whole / "inner").mkdir(parents=True)
    assert all(abandoned(tmp_path / name) for name in gone)
    sweep_abandoned(tmp_path)
    assert sorted(path.name for path in below.iterdir()) == sorted(stays)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stays, "below"])


def test_what_another_machine_left_goes_after_a_day(tmp_path: Path):
    path = tmp_path / ".a.json.01234567-1-0.tmp"
    path.write_text("x")
    assert not abandoned(path)
    yesterday = time.time() - 25 * 3600
    os.utime(path, (yesterday, yesterday))
    assert abandoned(path)


def test_a_link_is_removed_and_not_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / f".a.{place()}-{dead_pid()}-0.tmp").symlink_to(outside)
    sweep_abandoned(inside)
    assert list(inside.iterdir()) == []
    assert (outside / "kept").exists()


def test_a_folder_that_is_not_there_is_nothing_to_sweep(tmp_path: Path):
    sweep_abandoned(tmp_path / "absent")
