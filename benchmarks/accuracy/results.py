"""The report: what was asked, taken and reached, and the paired differences, as Markdown."""

import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.contenders import (
    MIRRORED,
    Course,
    Entry,
    Name,
    Run,
    budget_seconds,
    evaluate_command,
    journal,
    peer_command,
    read_tables,
    test_cases,
    timing,
    train_command,
)
from benchmarks.accuracy.scoring import CaseScore
from benchmarks.accuracy.statistics import Spread, foreground_dice, paired_difference, spread
from benchmarks.report import table
from segkit.data.sample import sample_root
from segkit.metrics.uncertainty import Interval

LABELS: dict[str, str] = {
    "segkit": "segkit",
    "peer-same-chance": "nnU-Net's classes, same chance",
    "peer-same-chance" + MIRRORED: "nnU-Net's classes, same chance, mirrored",
    "peer-default": "nnU-Net as it comes, stopped",
    "peer-default" + MIRRORED: "nnU-Net as it comes, stopped, mirrored",
}
OURS = "segkit"
FLOORS = {"5m": 0.885, "10m": 0.895}
_EXPLAINED = """\
- **segkit**: the command a person types, with its checks, plan, preparation, tracking and validation; minutes from the
  start of the process to its end. Predicted without mirroring.
- **nnU-Net's classes, same chance**: its planner, preprocessing, loaders, augmentation, loss, deep supervision,
  training step and inference, with the network and batch of segkit's small plan, AdamW at 2e-3, 5 % warm-up and a
  cosine that reaches zero at the last step, no validation. *mirrored*: averaged over all mirror images, as it predicts
  by default. Its rate was tried on the tuning people like ours (825 steps, seed 0, 57 cases): 2e-3 came to 0.836,
  mirrored 0.844; 4e-3, the rate of segkit's small plan, to 0.835 and 0.844.
- **nnU-Net as it comes, stopped**: its own plan, SGD and schedule over 1000 epochs, simply ended when the time is up.
  It was not made for minutes; this row says what happens, not how good it is.
- nnU-Net is given the training and the tuning people, since it selects nothing; segkit trains on the training people
  and selects by the tuning people. Neither planner sees the test people.
- nnU-Net's fingerprint, plan and preprocessing, its validation and its predictions are not counted in its minutes. Its
  steps are as many as fit by its own start-up and seconds a step, timed on idle cores; the faster of one and two loader
  processes.
- One scorer reads everyone's masks: Dice on the images' own voxels, mean over both classes, then over cases."""


@dataclass(frozen=True)
class Point:
    """One contender at one budget, all seeds together.

    Args:
        name: Contender, a peer perhaps with `MIRRORED`.
        budget: Minutes asked, as `5m`.
        minutes: Minutes taken, mean over the seeds.
        steps: Training steps, median over the seeds.
        dice: Foreground Dice with its interval by person.
        seeds: Its value a seed, and their spread.
        gain: Ours less theirs, paired; None for ours, or where ours is not there.
    """

    name: str
    budget: str
    minutes: float
    steps: int
    dice: Interval
    seeds: Spread
    gain: Interval | None


def points(course: Course) -> list[Point]:
    """All that was measured so far, in the order of `LABELS` and of the budgets."""
    entries = journal(course)
    budgets = sorted({entry.budget for entry in entries}, key=budget_seconds)
    tables = {(name, budget): read_tables(course, name, budget) for name in LABELS for budget in budgets}
    return [
        _point(name, budget, found, tables[OURS, budget], entries) for (name, budget), found in tables.items() if found
    ]


def document(course: Course, facts: Mapping[str, str], *, day: str, figure: str) -> str:
    """The whole report.

    Args:
        course: Where the tables lie.
        facts: On what it was measured.
        day: Of the report, ISO.
        figure: Path of the figure, as the report links it.
    """
    found = points(course)
    parts = [
        f"# Accuracy by wall-clock time, {day}",
        _people(course, found),
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        f"![Foreground Dice against minutes of training]({figure})",
        "## Foreground Dice",
        _scores(found),
        "Interval: 95 %, t by person. The seeds of a contender are averaged case by case first; how far they lie apart "
        "is their standard deviation (SD).",
        "## Paired differences, segkit less the other",
        _gains(found),
        "The same cases of the same people on both sides, seeds averaged on each side first; 95 %, t by person. An "
        "interval that holds 0 means that no difference is shown.",
        "## Who takes part",
        _EXPLAINED,
        "## Commands",
        _commands(course),
        "## Runs",
        _runs(journal(course)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def signed(interval: Interval) -> str:
    """`+0.012 [+0.004, +0.020]`."""
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def versions(python: str) -> str:
    """nnU-Net and what it stands on, in the environment of another interpreter."""
    names = ("nnunetv2", "batchgeneratorsv2", "torch", "numpy")
    code = f"from importlib.metadata import version as v; print(', '.join(f'{{n}} {{v(n)}}' for n in {names}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _point(
    name: str,
    budget: str,
    tables: Mapping[int, Sequence[CaseScore]],
    ours: Mapping[int, Sequence[CaseScore]],
    entries: Sequence[Entry],
) -> Point:
    mine = [e for e in entries if e.contender == name.removesuffix(MIRRORED) and e.budget == budget]
    last = {entry.seed: entry for entry in mine if entry.seed in tables}
    return Point(
        name,
        budget,
        minutes=statistics.fmean(entry.minutes for entry in last.values()),
        steps=round(statistics.median(entry.steps for entry in last.values())),
        dice=foreground_dice(list(tables.values())),
        seeds=spread(tables),
        gain=paired_difference(list(ours.values()), list(tables.values())) if ours and name != OURS else None,
    )


def _people(course: Course, found: Sequence[Point]) -> str:
    scored = {(point.dice.n, point.dice.n_groups) for point in found}
    who = " and ".join(f"{n} cases of {people} people" for n, people in sorted(scored))
    if course.stage == "tune":
        return f"**Tuning people, not a measurement.** {who}, of `benchmarks/accuracy/{course.split.name}`."
    return (
        f"Hippocampi, {who}: the test part of `benchmarks/accuracy/{course.split.name}` (part 0 of 4, dealt by "
        "person). Recipes of this comparison were tuned on `split_tune.json`, where these people have no role; since "
        f"the split was named, nothing but this measurement has scored them. They were read {len(journal(course))} "
        f"times, once for every run listed below. {_shipped(course)} of the cases also ship as sample data, which the "
        "demonstration and the tests train on."
    )


def _shipped(course: Course) -> int:
    """How many of the measured cases are among the sample data."""
    shipped = {path.name.removesuffix(".nii.gz") for path in (sample_root() / "labelsTr").iterdir()}
    return len(shipped & set(test_cases(course)))


def _scores(found: Sequence[Point]) -> str:
    lines = [["contender", "asked", "minutes", "steps", "Dice", "95 %", "per seed", "SD of seeds", "floor"]]
    for point in found:
        dice, floor = point.dice, FLOORS.get(point.budget)
        reached = "" if floor is None or point.name != OURS else f"{floor}: {'yes' if dice.mean >= floor else 'no'}"
        lines.append(
            [
                LABELS[point.name],
                point.budget,
                f"{point.minutes:.2f}",
                str(point.steps),
                f"{dice.mean:.4f}",
                f"{dice.low:.4f} to {dice.high:.4f}",
                ", ".join(f"{mean:.4f}" for mean in point.seeds.means),
                "one seed" if len(point.seeds.means) == 1 else f"{point.seeds.deviation:.4f}",
                reached,
            ]
        )
    return table(lines)


def _gains(found: Sequence[Point]) -> str:
    lines = [["against", "asked", "difference and 95 %"]]
    lines += [[LABELS[p.name], p.budget, signed(p.gain)] for p in found if p.gain is not None]
    return table(lines) if len(lines) > 1 else "Not measured yet."


def _commands(course: Course) -> str:
    run = Run("segkit", "5m", 0)
    lines = [train_command(course, run), evaluate_command(course, run)]
    peers: list[Name] = ["peer-same-chance", "peer-default"]
    for name in peers:
        if (course.results / f"timing-{name}.json").is_file():
            length = ["--steps", "N", "--workers", str(int(timing(course, name)["workers"]))]
            lines.append(peer_command(course, name, seed=0, length=length, out=course.workspace / "peers" / name))
    return "\n".join(["```", *(_shown(course, line) for line in lines), "```"])


def _shown(course: Course, command: Sequence[str]) -> str:
    """A command without the paths of the machine it was typed on."""
    names = {str(course.data): "DATA", str(course.split): f"benchmarks/accuracy/{course.split.name}"}
    names |= {str(course.workspace): "runs/accuracy"}
    words = ["python" if word in (sys.executable, course.peers) else word for word in command]
    line = shlex.join(words)
    for path, name in names.items():
        line = line.replace(path, name)
    return line


def _runs(entries: Sequence[Entry]) -> str:
    lines = [["contender", "asked", "seed", "steps", "minutes", "how timed", "Dice", "overrides", "commit", "scored"]]
    for entry in entries:
        timed = [f"{entry.minutes:.2f}", entry.timed, f"{entry.dice:.4f}", entry.overrides, entry.commit, entry.scored]
        lines.append([entry.contender, entry.budget, str(entry.seed), str(entry.steps), *timed])
    return table(lines)
