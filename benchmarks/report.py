"""What was measured, as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.floors import verdict
from benchmarks.harness import Contender, Measured, Row, Spread, paired_ratio, spread


@dataclass(frozen=True)
class Outcome:
    """A row after it was run.

    Args:
        row: The row.
        contenders: Those that took part.
        measured: By contender, a value a round.
        seconds: How long it all took.
        skipped: Why it was not run, or not to its end; empty where it was.
        warmup: Rounds that did not count.
    """

    row: Row
    contenders: Mapping[str, Contender]
    measured: Mapping[str, Sequence[Measured]]
    seconds: float
    skipped: str = ""
    warmup: int = 0


def document(
    title: str,
    facts: Mapping[str, str],
    outcomes: Sequence[Outcome],
    *,
    floors: Mapping[tuple[str, str], float],
    notes: Sequence[str] = (),
) -> str:
    """The whole report.

    Args:
        title: Its heading.
        facts: On what it was measured.
        outcomes: The rows.
        floors: What they have to reach, by row and peer.
        notes: What a reader must know first.
    """
    parts = [
        f"# {title}",
        "\n".join(notes),
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "Ratios are theirs / ours: above 1 is in our favour. Median over rounds of the ratio of one round, in brackets "
        "its 10th to 90th percentile. *Same precision*: ours in the peer's arithmetic.",
        comparison(outcomes, floors),
        *(details(outcome) for outcome in outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison(outcomes: Sequence[Outcome], floors: Mapping[tuple[str, str], float]) -> str:
    """The table of all pairs."""
    lines = [["what", "against", "ours", "theirs", "ratio", "same precision", "floor"]]
    for outcome in outcomes:
        row, found = outcome.row, outcome.measured
        if outcome.skipped:
            lines.append([row.title, "", "", "", outcome.skipped.splitlines()[0], "", ""])
            continue
        peers = [pair.peer for pair in row.pairs]
        for pair in row.pairs:
            if pair.peer not in found or pair.ours not in found:
                continue
            ratio, floor = ratio_of(outcome, pair.peer, pair.ours), floors.get((row.name, pair.peer))
            lines.append(
                [
                    row.title if peers.count(pair.peer) == 1 else f"{row.title}: {pair.ours}",
                    pair.peer,
                    figure(_values(outcome, pair.ours), row.unit),
                    figure(_values(outcome, pair.peer), row.unit),
                    ratio_text(ratio),
                    "the same" if pair.same is None else ratio_text(ratio_of(outcome, pair.peer, pair.same)),
                    "" if floor is None else f"{floor:.1f}x: {verdict(ratio, floor)}",
                ]
            )
    return table(lines)


def details(outcome: Outcome) -> str:
    """What one row times, and every contender's figures."""
    row = outcome.row
    head = f"## {row.title}\n\n{row.what}"
    if outcome.skipped:
        return f"{head}\n\nNot measured: {outcome.skipped}"
    beside = list(dict.fromkeys(name for runs in outcome.measured.values() for run in runs for name in run.beside))
    lines = [["contender", "precision", f"median ({row.unit})", "10 to 90 %", *beside]]
    for name, runs in outcome.measured.items():
        whole = spread([run.value for run in runs])
        others = [[run.beside[key] for run in runs if key in run.beside] for key in beside]
        lines.append(
            [
                name,
                outcome.contenders[name].precision,
                number(whole.median),
                f"{number(whole.low)} to {number(whole.high)}",
                *(number(statistics.median(values)) if values else "" for values in others),
            ]
        )
    rounds = len(next(iter(outcome.measured.values())))
    end = f"{rounds} rounds after {outcome.warmup} of warm-up, {outcome.seconds:.0f} s in all."
    return f"{head}\n\n{table(lines)}\n\n{end}"


def ratio_of(outcome: Outcome, peer: str, ours: str) -> Spread:
    """Theirs over ours, round by round."""
    return paired_ratio(_values(outcome, peer), _values(outcome, ours))


def ratio_text(ratio: Spread) -> str:
    """`2.31 (2.20 to 2.40)`."""
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def figure(values: Sequence[float], unit: str) -> str:
    """Median with its unit."""
    return f"{number(statistics.median(values))} {unit}"


def number(value: float) -> str:
    """Three figures that count, whole numbers above a hundred."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first line the heading."""
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]])


def write(folder: Path, name: str, text: str) -> Path:
    """Write a report beside the earlier ones: NAME.md, NAME-2.md and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    path = next(path for path in (folder / f"{each}.md" for each in names) if not path.exists())
    path.write_text(text)
    return path


def _values(outcome: Outcome, name: str) -> list[float]:
    return [run.value for run in outcome.measured[name]]
