"""Processes of the contenders: silent where they end well, quoted where they do not."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

STARTED = "SEGKIT_BENCH_STARTED"
"""Environment variable: when a contender's process was started, in seconds since 1970."""

_SHOWN = 3000


def run_python(words: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
    """Run this Python with arguments until it ends.

    Args:
        words: Arguments of the interpreter.
        environment: Variables set beside those of this process.

    Raises:
        RuntimeError: It did not end with code 0; with the end of what it wrote to standard error.
    """
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        shown = " ".join(words[:5])
        raise RuntimeError(f"python {shown} ended with code {done.returncode}:\n{done.stderr[-_SHOWN:]}")
