"""The text blocks that open and close a run: pure functions from facts to lines."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_LINES = 25
"""A banner that scrolls the terminal is not read."""


@dataclass(frozen=True)
class StartFacts:
    """What the start banner says.

    Args:
        version: segkit's version.
        run_name: Name of the run.
        dataset: Name of the data set.
        layout: How the folder was recognised.
        channels: Channel names.
        classes: Class names, background first.
        people: role -> (cases, people).
        plan_name: Name on the ladder.
        spacing: Of the plan, with `unit`.
        unit: "mm" or "pixel".
        patch_size: Voxels.
        batch_size: Patches a step.
        network: Class name.
        described: Its size in words: parameters, operations, receptive field.
        recipe: Losses, optimizer, schedule in a few words.
        epochs: (first epoch to come, last).
        steps_per_epoch: Steps.
        device: Name of the device.
        precision: Lightning's name of the precision.
        score: The composite score in words.
        run_folder: Absolute path.
        tracking: Store address, or "off".
        resume_line: The command that goes on with this run.
        resumed_from: What was restored, empty for a fresh start.
        budget: What the run's time was made into, empty where its length was given otherwise.
        memory: What training is predicted to take, and what is free; empty where nothing is known.
        weights: What the network begins with, in lines; none where it begins as it was drawn.
        warnings: One line each.
    """

    version: str
    run_name: str
    dataset: str
    layout: str
    channels: Sequence[str]
    classes: Sequence[str]
    people: Mapping[str, tuple[int, int]]
    plan_name: str
    spacing: Sequence[float]
    unit: str
    patch_size: Sequence[int]
    batch_size: int
    network: str
    described: str
    recipe: str
    epochs: tuple[int, int]
    steps_per_epoch: int
    device: str
    precision: str
    score: str
    run_folder: str
    tracking: str
    resume_line: str
    resumed_from: str = ""
    budget: str = ""
    memory: str = ""
    weights: Sequence[str] = ()
    warnings: Sequence[str] = ()


def start_banner(facts: StartFacts) -> str:
    """At most `MAX_LINES` lines; what does not fit of the warnings is counted and left to the log."""
    roles = people_by_role(facts.people)
    closed = "test and held-out" if "held_out" in facts.people else "test"
    classes = ", ".join(facts.classes[:6]) + (f", ... ({len(facts.classes)})" if len(facts.classes) > 6 else "")
    spacing = " x ".join(f"{s:g}" for s in facts.spacing)
    rows = [
        ("data", f"{facts.dataset} ({facts.layout}): {roles}; the {closed} files are not opened"),
        ("channels", ", ".join(facts.channels)),
        ("classes", classes),
        ("plan", f"{facts.plan_name}: spacing {spacing} {facts.unit}, patch {_by(facts.patch_size)}, "
                 f"batch {facts.batch_size}"),
        ("network", f"{facts.network}, {facts.described}"),
        ("training", f"epochs {facts.epochs[0]} to {facts.epochs[1]} of {facts.steps_per_epoch} steps; {facts.recipe}"),
        ("device", f"{facts.device}, {facts.precision}"),
        ("selection", facts.score),
        ("run folder", facts.run_folder),
        ("MLflow", facts.tracking),
        ("go on with", facts.resume_line),
    ]  # fmt: skip
    if facts.budget:
        at = 1 + next(i for i, (name, _) in enumerate(rows) if name == "training")
        rows.insert(at, ("budget", facts.budget))
    if facts.memory:
        at = 1 + next(i for i, (name, _) in enumerate(rows) if name == "device")
        rows.insert(at, ("memory", facts.memory))
    if facts.weights:
        at = 1 + next(i for i, (name, _) in enumerate(rows) if name == "network")
        rows[at:at] = [("weights" if i == 0 else "", line) for i, line in enumerate(facts.weights)]
    if facts.resumed_from:
        rows.insert(0, ("resumed", facts.resumed_from))
    lines = [f"segkit {facts.version}  {facts.run_name}", *(f"  {name:<11} {text}" for name, text in rows)]
    room = MAX_LINES - len(lines)
    shown = list(facts.warnings[:room])
    if len(facts.warnings) > room:
        shown[-1] = f"and {len(facts.warnings) - room + 1} more warnings in log.txt"
    return "\n".join([*lines, *(f"  {'warning':<11} {text}" for text in shown)])


@dataclass(frozen=True)
class EndFacts:
    """What the end block says.

    Args:
        reason: Why training ended.
        selected: Which checkpoint was selected and why.
        score: Its selection score.
        standard_error: Of that score over the tuning cases; None below two cases.
        cases: Number of tuning cases.
        minutes: Wall-clock of this life of the run.
        places: name -> path of what was written.
        commands: The next commands.
    """

    reason: str
    selected: str
    score: float | None
    standard_error: float | None
    cases: int
    minutes: float
    places: Mapping[str, str]
    commands: Sequence[str]


def end_block(facts: EndFacts) -> str:
    """The score under its honest name, where everything is, and what to do next."""
    if facts.score is None:
        score = "none: no tuning cases"
    else:
        error = "" if facts.standard_error is None else f" +- {facts.standard_error:.4f} (standard error)"
        score = f"{facts.score:.4f}{error}, n = {facts.cases}"
    width = max(len(name) for name in facts.places)
    return "\n".join(
        [
            "",
            f"ended after {facts.minutes:.1f} min: {facts.reason}",
            f"selected   {facts.selected}",
            f"selection score (optimistic)  {score}",
            *(f"  {name:<{width}}  {path}" for name, path in facts.places.items()),
            "next:",
            *(f"  {command}" for command in facts.commands),
        ]
    )


def command_line(verb: str, overrides: Sequence[str]) -> str:
    """The command that a shell reads back as the same overrides."""
    return " ".join(["python -m segkit." + verb, *(shlex.quote(override) for override in overrides)])


def people_by_role(people: Mapping[str, tuple[int, int]]) -> str:
    """`train 40 of 27 people, tuning 5, test 8`.

    Args:
        people: role -> (cases, people).
    """
    return ", ".join(f"{role.replace('_', ' ')} {cases}{of_people(cases, n)}" for role, (cases, n) in people.items())


def of_people(cases: int, people: int) -> str:
    """` of 27 people` where some people have more than one case, else nothing."""
    return "" if cases == people else f" of {people} people"


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(s) for s in size)
