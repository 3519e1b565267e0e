"""A process that must not outlive its starter does not, whatever it is doing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, sys, time
from segkit.runs.lifeline import die_with, killed_with_parent
{begin}
open(sys.argv[1], "w").write(str(os.getpid()))
{work}
"""
STARTER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], {parent}], process_group=0)
time.sleep(600)
"""
IN_NATIVE_CODE = "import ctypes; ctypes.PyDLL(None).sleep(600)"  # holds the interpreter's lock: no thread of it runs


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize(
    ("begin", "work"),
    [
        ("die_with(int(sys.argv[2]))", "time.sleep(600)"),
        ("killed_with_parent()", "time.sleep(600)"),
        ("killed_with_parent()", IN_NATIVE_CODE),
    ],
)
def test_it_ends_with_its_starter(tmp_path, begin, work):
    note, code = tmp_path / "pid", CHILD.format(begin=begin, work=work)
    command = [sys.executable, "-c", STARTER.format(parent="str(__import__('os').getpid())"), code, str(note)]
    starter = subprocess.Popen(command)
    wait(lambda: note.exists() and note.read_text() != "")
    pid = int(note.read_text())
    assert not gone(pid)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait(lambda: gone(pid), within=5)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_starter_that_is_gone_already_is_noticed(tmp_path):
    code = CHILD.format(begin="die_with(int(sys.argv[2]))", work="time.sleep(600)")
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pid"), "1"], process_group=0)
    assert child.wait(20) == -signal.SIGKILL


def wait(condition, *, within: float = 20.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
