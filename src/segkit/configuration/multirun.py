"""`--multirun`: Hydra's own main and sweepers, one job for each combination of values.

Every value is checked before the first job starts. Each job composes its configuration for itself, as a
single run does; Hydra only says which values. A job that fails is told and does not stop the others. Names
are `NAME/<job>-<overrides>`, NAME being run_name, or drawn once for the whole sweep.
"""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

from segkit.configuration.composition import check
from segkit.configuration.entry import Request, report, resolve, run
from segkit.configuration.overrides import read_overrides
from segkit.configuration.problems import usage_error
from segkit.configuration.tree import config_dir
from segkit.errors import ExitCode

# Hydra makes no log; of folders only the sweep's own, with multirun.yaml, which says what was swept.
_QUIET = [
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.sweep.subdir=.",
]


def multirun(verb: str, request: Request) -> ExitCode:
    """Run a sweep; the exit code is that of the first job that failed, 75 where a signal ended it.

    Raises:
        UsageError: All that is wrong with any value, before anything has run.
    """
    checked = check(
        verb,
        request.overrides,
        config_dirs=request.config_dirs,
        config_name=request.config_name,
        multirun=True,
    )
    if found := [*request.problems, *checked.problems]:
        raise usage_error(verb, found)
    named = {setting.key: setting.values[0] for setting in checked.settings}
    sweep = named.get("run_name") or f"sweep-{datetime.now():%Y%m%d-%H%M%S}"
    swept = [override.place for override in read_overrides(request.overrides) if override.is_sweep]
    dicts = {key for key, leaf in checked.leaves.items() if leaf.is_open}
    opened = {setting.key for setting in checked.settings if setting.below_open or setting.key in dicts}
    codes: list[ExitCode] = []

    def job(_config: object) -> float | None:
        if ExitCode.PREEMPTED in codes:
            return None  # the signal was meant for the sweep: the same command goes on with this job
        typed = [text.lstrip("+") for text in HydraConfig.get().overrides.task]
        words = [text for text in typed if not text.startswith("run_name=")]
        if "run_name" in checked.leaves:
            number = HydraConfig.get().job.num
            words.append(f"run_name={job_name(sweep, number, words, swept)}")
        try:
            result = run(
                verb, resolve(verb, Request(words, config_dirs=request.config_dirs, config_name=request.config_name))
            )
        except Exception as error:
            codes.append(report(error))
            return None
        return getattr(result, "score", None)

    folder = Path(named.get("paths.runs", "runs")) / sweep
    arguments = [_to_hydra(text, opened) for text in request.overrides]
    search = [word for path in request.config_dirs for word in ("--config-dir", str(path))]
    _run_hydra(job, request.config_name or verb, [*search, *_QUIET, f"hydra.sweep.dir='{folder}'", *arguments])
    if ExitCode.PREEMPTED in codes:
        return ExitCode.PREEMPTED
    return codes[0] if codes else ExitCode.DONE


def _to_hydra(text: str, opened: set[str]) -> str:
    """A checked override in Hydra's words: it wants to be told what its files do not hold."""
    key = text.partition("=")[0]
    return f"++{text}" if key in opened else f"+{text}" if "@" in key else text


def job_name(sweep: str, number: int, words: list[str], swept: list[str]) -> str:
    """`NAME/<job>-<overrides>`: the swept keys by their last part, in characters that any file system takes."""
    values = dict(word.split("=", 1) for word in words)
    label = ",".join(f"{key.rpartition('.')[2]}={values[key]}" for key in swept if key in values)
    safe = "".join(letter if letter.isalnum() or letter in "=,.-_" else "_" for letter in label)
    return f"{sweep}/{number}-{safe}"[:200]


def _run_hydra(job: Callable[[object], float | None], name: str, arguments: list[str]) -> None:
    """Hydra's main reads sys.argv and nothing else."""
    before = sys.argv
    sys.argv = [before[0], "--multirun", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)(job)()
    finally:
        sys.argv = before
