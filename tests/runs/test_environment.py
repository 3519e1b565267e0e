"""Facts about where a run was made."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from segkit.runs import environment
from segkit.runs.environment import git_state, package_version


def test_versions() -> None:
    assert package_version("torch")
    assert package_version("no-such-package") is None


def test_git_state_of_a_checkout(tmp_path: Path, monkeypatch) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        answer = subprocess.run(["git", "-C", tmp_path, *identity, *arguments], capture_output=True, check=False)
        if answer.returncode:
            pytest.skip(f"git does not work here: {answer.stderr!r}")

    assert git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "x", "--no-verify")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="the system does not say when a process began")
def test_only_the_first_run_of_a_process_has_waited_for_its_start(monkeypatch) -> None:
    monkeypatch.setattr(environment, "_counted", set())
    assert environment.seconds_since_start("train") == 0, "this process is none of segkit's verbs"
    monkeypatch.setattr(environment, "_counted", set())
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="segkit.train"))
    assert 0 < environment.seconds_since_start("train") < 24 * 3600
    assert environment.seconds_since_start("train") == 0, "the second fold of a sweep would inherit the first's minutes"
