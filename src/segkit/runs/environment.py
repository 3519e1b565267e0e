"""What a run was made with: versions, host, git state. Facts for people, never read back by the program."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("segkit", "torch", "lightning", "monai", "torchmetrics", "mlflow", "hydra-core", "numpy", "safetensors")


def environment() -> dict[str, Any]:
    """Versions of the packages, Python, host, processors, command line and git state of the source checkout."""
    return {
        "packages": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "pid": os.getpid(),
        "command": sys.argv,
        "git": git_state(Path(__file__).parent),
    }


_counted: set[str] = set()
"""Verbs whose start has been asked for in this process."""


def seconds_since_start(verb: str) -> float:
    """Seconds since this process was started as `python -m segkit.VERB`.

    A person who gives a run ten minutes counts the imports too. 0 where the process is another, such as a notebook,
    or the system does not say, and from the second question on: of the runs that a sweep trains in one process only
    the first has waited for the start.
    """
    if verb in _counted:
        return 0.0
    _counted.add(verb)
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    facts = Path("/proc/self/stat")
    if getattr(spec, "name", "") != f"segkit.{verb}" or not facts.is_file():
        return 0.0
    # Field 22, counted after the name in brackets, which may hold anything: clock ticks since boot.
    ticks = int(facts.read_text().rpartition(")")[2].split()[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def package_version(name: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and cleanness of the checkout that `folder` lies in; None without git, checkout or commit."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        answer = subprocess.run([git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
