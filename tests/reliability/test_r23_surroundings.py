"""R23: clock, locale, umask, temporary folder, home, working directory, odd paths, a read-only data set: it works.

Or it ends with one clean message. Whole trainings in real processes, each in surroundings of its own; one that
works ends bitwise where the ordinary one does.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
from tests.reliability.fork_server import verb

from segkit.errors import ExitCode

pytestmark = pytest.mark.alone

ODD = "a b=c 'q' \"d\" $HOME {x} ü中"


def umask_077() -> None:
    os.umask(0o077)


def clock_jumps_back() -> None:
    """A year earlier each time it is asked; nothing that measures a distance may use this clock."""
    real, jumps = time.time, count()
    time.time = lambda: real() - 3e7 * next(jumps)


def clock_before_1970() -> None:
    time.time = lambda: -1e6


def home_unset() -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "USER", "LOGNAME"):
        os.environ.pop(name, None)


def home_missing() -> None:
    os.environ["HOME"] = "/proc/no-such-home"


def tmpdir_missing() -> None:
    os.environ["TMPDIR"] = "/proc/no-such-folder"
    tempfile.tempdir = None


def tmpdir_nowhere() -> None:
    """No folder takes a temporary file: neither $TMPDIR nor /tmp nor the working directory."""

    def refused(*_: object, **__: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    tempfile.gettempdir = tempfile._get_default_tempdir = refused


def tmpdir_on_another_file_system() -> None:
    os.environ["TMPDIR"] = tempfile.mkdtemp(dir="/dev/shm")
    tempfile.tempdir = None


def directory_deleted() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    os.rmdir(gone)


def ascii_terminal() -> None:
    """What LC_ALL=C makes of standard output where Python is told not to help."""
    os.environ["LC_ALL"] = "C"
    sys.stdout.reconfigure(encoding="ascii", errors="strict")
    sys.stderr.reconfigure(encoding="ascii", errors="backslashreplace")


def turkish() -> None:
    for name in ("LC_ALL", "LANG", "LC_NUMERIC"):
        os.environ[name] = "tr_TR.UTF-8"


def standard_output_closed() -> None:
    os.close(1)
    sys.stdout = None  # as Python sets it where the descriptor is closed at the start


TOGETHER = [  # in the default run; at full size each by itself
    (umask_077, clock_jumps_back, home_unset, tmpdir_missing, ascii_terminal),
    (clock_before_1970, home_missing, tmpdir_nowhere, turkish, standard_output_closed),
]


def surrounded(changes: tuple[Callable[[], None], ...], *argv: str) -> int:
    """A training in changed surroundings."""
    for change in changes:
        change()
    return verb("train", *argv)


@pytest.fixture(scope="module")
def remembered() -> dict[str, Any]:
    """What one test has found out for the next."""
    return {}


@pytest.fixture
def ordinary(forks, train_argv, end_state, remembered, tmp_path: Path) -> dict[str, Any]:
    """End of the run in ordinary surroundings; its cache of prepared cases is not shared."""
    if not remembered:
        argv = train_argv("ordinary", f"paths.cache={tmp_path / 'cache'}")
        assert forks.command("train", argv, output=tmp_path / "out").wait() == 0
        remembered.update(end_state(tmp_path / "runs" / "ordinary"))
    return remembered


def test_it_ends_where_the_ordinary_run_does(
    forks, train_argv, end_state, assert_bitwise_equal, ordinary, size, tmp_path: Path
) -> None:
    for changes in size(TOGETHER, [(change,) for change in (*chain(*TOGETHER), tmpdir_on_another_file_system)]):
        name = "-".join(change.__name__ for change in changes)
        child = forks.start(surrounded, changes, *train_argv(name), output=tmp_path / name)
        assert child.wait() == 0, f"{name}\n{child.stderr}"
        assert "Traceback" not in child.stderr, name
        assert_bitwise_equal(ordinary, end_state(tmp_path / "runs" / name))
        if umask_077 in changes:
            files = [path for path in (tmp_path / "runs" / name).rglob("*") if path.is_file()]
            assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files} == {0}


def test_a_working_directory_that_was_deleted_is_named(forks, train_argv, tmp_path: Path) -> None:
    child = forks.start(surrounded, (directory_deleted,), *train_argv("gone"), output=tmp_path / "gone")
    assert child.wait() == ExitCode.USAGE
    assert "working directory is gone" in child.stderr
    assert "Traceback" not in child.stderr
    assert not (tmp_path / "runs").exists()


def quoted(key: str, value: object) -> str:
    """An override whose value is text, whatever is in it."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{text}"'


def test_odd_paths_and_the_line_that_resumes(
    forks, train_argv, end_state, assert_bitwise_equal, ordinary, tmp_path: Path
) -> None:
    """Blanks, an equals sign, quotes, a dollar and letters of other scripts in the data's and the runs' folder."""
    odd = tmp_path / ODD
    odd.mkdir()
    data = shutil.copytree(tmp_path / "Dataset900_Phantom", odd / "Dataset900_Phantom")
    plain = [word for word in train_argv("odd") if not word.startswith(("data.root", "paths.runs"))]
    argv = [*plain, quoted("data.root", data), quoted("paths.runs", odd / "runs")]
    child = forks.command("train", argv, output=tmp_path / "first")
    assert child.wait() == 0, child.stderr
    assert_bitwise_equal(ordinary, end_state(odd / "runs" / "odd"))
    line = re.search(r"go on with +python -m segkit\.train (.*)", child.stdout)[1]
    again = forks.command("train", shlex.split(line), output=tmp_path / "again")
    assert again.wait() == 0, again.stderr
    assert "finished before" in again.stdout


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A mounted folder that becomes read-only when the test says so: root ignores permissions."""
    folder = tmp_path / "read only"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("a read-only drive is mounted by root only")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=False).returncode:
        pytest.skip("this system lets root mount nothing")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_read_only_data_set(
    forks, train_argv, end_state, assert_bitwise_equal, ordinary, read_only: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tmp_path / "Dataset900_Phantom", read_only / "Dataset900_Phantom")
    subprocess.run(["mount", "-o", "remount,ro", read_only], check=True)
    child = forks.command("train", train_argv("protected", f"data.root={data}"), output=tmp_path / "out2")
    assert child.wait() == 0, child.stderr
    assert_bitwise_equal(ordinary, end_state(tmp_path / "runs" / "protected"))


def test_a_read_only_place_for_runs_is_refused_in_one_message(forks, train_argv, read_only: Path, tmp_path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", read_only], check=True)
    child = forks.command("train", train_argv("nowhere", f"paths.runs={read_only}/runs"), output=tmp_path / "out3")
    assert child.wait() == ExitCode.IO
    assert "The folder of the run cannot be made." in child.stderr
    assert "paths.runs=" in child.stderr
    assert "Traceback" not in child.stderr


def test_a_run_that_became_read_only_is_refused_in_one_message(forks, train_argv, read_only: Path, tmp_path) -> None:
    words = (f"paths.runs={read_only}", f"paths.cache={tmp_path}/cache")
    assert forks.command("train", train_argv("life", *words), output=tmp_path / "one").wait() == 0
    subprocess.run(["mount", "-o", "remount,ro", read_only], check=True)
    child = forks.command("train", train_argv("life", *words, "extra_epochs=1"), output=tmp_path / "two")
    assert child.wait() == ExitCode.IO, child.stderr
    assert str(read_only) in child.stderr
    assert "Traceback" not in child.stderr


def test_a_locale_without_utf8_from_the_start(train_argv, size, tmp_path: Path) -> None:
    """The interpreter itself under LC_ALL=C, without the help that Python gives of its own accord."""
    if not size.full:
        pytest.skip("starts an interpreter of its own; part of the full size")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "segkit.train", *train_argv("plain")]
    done = subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr
