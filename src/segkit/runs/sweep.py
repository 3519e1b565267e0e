"""A folder of runs: the jobs of a sweep, the folds of a cross-validation, or runs that were put side by side."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, read_yaml
from segkit.runs.results import ResultsDirectory


@dataclass(frozen=True)
class SweepDirectory(ResultsDirectory):
    """Paths of a sweep and the runs in it.

    Args:
        path: The folder; made absolute.
    """

    @property
    def multirun(self) -> Path:
        """What Hydra writes before the first job of `--multirun`."""
        return self.path / "multirun.yaml"

    @property
    def runs(self) -> tuple[RunDirectory, ...]:
        """The runs in the folder, by name, 10 after 9."""
        found = (RunDirectory(path.parent) for path in self.path.glob("*/config.yaml"))
        return tuple(sorted(found, key=lambda run: _counting(run.name)))

    @property
    def members(self) -> tuple[RunDirectory, ...]:
        """The runs that belong together: jobs of one `--multirun`, or runs that were evaluated together.

        Runs that have a folder in common and nothing else, as those below `paths.runs` have, do not.
        """
        return tuple(run for run in self.runs if self.holds(run))

    @property
    def exists(self) -> bool:
        """Whether there are runs in the folder, which is none itself."""
        return not RunDirectory(self.path).exists and any(self.path.glob("*/config.yaml"))

    @property
    def swept(self) -> list[str]:
        """What was swept, as it was typed; nothing where the runs were started one by one."""
        try:
            hydra: Any = read_yaml(self.multirun)["hydra"]
            return [str(word) for word in hydra["overrides"]["task"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def holds(self, run: RunDirectory) -> bool:
        """Whether a run in the folder is one of `members`."""
        return self.multirun.is_file() or run.name in self._evaluated()

    def _evaluated(self) -> set[str]:
        """Names of the runs that were evaluated together."""
        names: set[str] = set()
        for path in self.evaluation.glob("*/summary.json"):
            try:
                names |= {str(name) for name in read_json(path)["runs"]}
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return names


def open_sweep(run: str | Path, *, root: Path = Path("runs")) -> SweepDirectory | None:
    """The sweep that `run` names: a folder, or a name below `root`; None where it names a run, or nothing."""
    given = Path(run).expanduser()
    for folder in (given, root / given):
        if RunDirectory(folder).exists:
            return None
        if SweepDirectory(folder).exists:
            return SweepDirectory(folder)
    return None


def sweeps_below(root: Path) -> Iterator[SweepDirectory]:
    """Every folder below `root` whose runs belong together."""
    for folder in sorted({path.parent.parent for path in root.glob("*/*/config.yaml")}):
        sweep = SweepDirectory(folder)
        if sweep.exists and sweep.members:
            yield sweep


def _counting(name: str) -> list[tuple[int, int, str]]:
    """A key by which 10 comes after 9."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
