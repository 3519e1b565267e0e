"""Facts about where a run was made."""

import subprocess
from pathlib import Path

import pytest

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
