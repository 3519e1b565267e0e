"""On what, and with which versions, something was measured."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from segkit.configuration.thread_waiting import SPIN_COUNT, WAIT_POLICY

_PACKAGES = ("torch", "segkit", "lightning", "nnunetv2", "batchgeneratorsv2", "monai", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")
_GIB = 2**30
_PLACES = ("--data", "--results")
_NOT_RESULTS = ":(exclude)benchmarks/results"
"""What a measurement writes changes nothing that it measures."""


def facts(command: str) -> dict[str, str]:
    """Name and value of all that a reader needs to judge a figure, or to measure it again.

    Args:
        command: What was typed.
    """
    return {
        "command": f"`{command}`",
        "commit": commit(),
        "processor": processor(),
        "memory": f"{_memory() / _GIB:.0f} GiB",
        "GPU": gpu(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "threads": f"{torch.get_num_threads()} in torch, {_waiting()} (the same for every contender of a row)",
    }


def command_line(arguments: Sequence[str]) -> str:
    """What was typed after `python -m benchmarks`, folders by their name: where they lie is this machine's affair."""
    words, value_follows = ["python", "-m", "benchmarks"], False
    for word in arguments:
        option, equals, value = word.partition("=")
        is_place = option in _PLACES
        if value_follows:
            words.append(Path(word).resolve().name)
        else:
            words.append(f"{option}={Path(value).resolve().name}" if is_place and equals else word)
        value_follows = is_place and not equals
    return shlex.join(words)


def _waiting() -> str:
    """How OpenMP's threads wait."""
    return ", ".join(f"{name}={os.environ.get(name, 'not set')}" for name in (WAIT_POLICY, SPIN_COUNT))


def processor() -> str:
    """Model, cores that may be used, and which of the instruction sets that matter it has."""
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", platform.processor() or platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    have = fields.get("flags", "").split()
    return f"{name}, {cores} cores, {' '.join(flag for flag in _FLAGS if flag in have) or 'no flags known'}"


def gpu() -> str:
    """Name and memory of the first CUDA device, or that there is none."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    device = torch.cuda.get_device_properties(0)
    return f"{device.name}, {device.total_memory / _GIB:.0f} GiB, CUDA {torch.version.cuda}"


def commit() -> str:
    """Short hash of the checkout, and whether files differ from it."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--", "src", "configs", "benchmarks", _NOT_RESULTS).strip()
        return git("rev-parse", "--short=12", "HEAD").strip() + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
