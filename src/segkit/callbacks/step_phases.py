"""The time of a training step, parted into phases that sum to it.

Lightning tells its profiler when each hook begins and ends, one within the other. Every moment of a step is charged to
the innermost hook that has a phase of its own, so that nothing is counted twice and nothing is lost: what no hook
claims is the loop's own.
"""

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WAIT, TRANSFER, AUGMENTATION = "wait for data", "transfer", "augmentation"
FORWARD, LOSS, BACKWARD = "forward", "loss", "backward"
GUARD, OPTIMIZER, CALLBACKS, LOOP = "guard and clip", "optimizer", "logging and callbacks", "the loop itself"
PHASES = (WAIT, TRANSFER, AUGMENTATION, FORWARD, LOSS, BACKWARD, GUARD, OPTIMIZER, CALLBACKS, LOOP)
"""In the order in which a step goes through them."""

FETCH = "train_dataloader_next"
"""The hook that a step begins with."""
_BY_HOOK = {
    FETCH: WAIT,
    "on_before_batch_transfer": TRANSFER,
    "transfer_batch_to_device": TRANSFER,
    "batch_to_device": TRANSFER,
    "on_after_batch_transfer": AUGMENTATION,
    "training_step": FORWARD,
    "backward": BACKWARD,
    "on_before_backward": GUARD,
    "on_after_backward": GUARD,
    "on_before_optimizer_step": GUARD,
    "configure_gradient_clipping": GUARD,
    "on_before_zero_grad": OPTIMIZER,
    "optimizer_zero_grad": OPTIMIZER,
    "optimizer_step": OPTIMIZER,
    "lr_scheduler_step": OPTIMIZER,
}
_AFTER_STEPS = ("on_validation", "on_train_epoch_end", "on_train_end")


def hook_of(action: str) -> str:
    """`[Callback]Recording.on_train_batch_end` gives `on_train_batch_end`."""
    return action.rpartition(".")[2]


def phase_of(action: str) -> str:
    """The phase that an action of Lightning's profiler belongs to."""
    return _BY_HOOK.get(hook_of(action), CALLBACKS if action.startswith("[") else LOOP)


def ends_the_steps(action: str) -> bool:
    """Whether an action comes after the last step of an epoch: validation, or the epoch's end."""
    return hook_of(action).startswith(_AFTER_STEPS)


class Stopwatch:
    """Charges the time of each step to the innermost phase.

    `steps` holds the seconds of each phase for every step that has ended.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.steps: list[dict[str, float]] = []
        self._clock = clock
        self._stack: list[str] = []
        self._step: dict[str, float] | None = None
        self._since = 0.0

    @property
    def phase(self) -> str:
        """Where the time goes now."""
        return self._stack[-1] if self._stack else LOOP

    def begin(self) -> None:
        """A step begins; one that is going on ends."""
        self.end()
        self._step = dict.fromkeys(PHASES, 0.0)

    def end(self) -> None:
        """The step that is going on ends."""
        self._charge()
        if self._step is not None:
            self.steps.append(self._step)
        self._step = None

    def push(self, phase: str) -> None:
        """Go into a phase."""
        self._charge()
        self._stack.append(phase)

    def pop(self) -> None:
        """Come back to what it lies in."""
        self._charge()
        if self._stack:
            self._stack.pop()

    def _charge(self) -> None:
        now = self._clock()
        if self._step is not None:
            self._step[self.phase] += now - self._since
        self._since = now


@dataclass(frozen=True)
class PhaseRow:
    """A phase of the average step.

    Args:
        phase: Name.
        mean_ms: Mean over the steps, ms.
        share: Of the mean step, 0 to 1.
        std_ms: Standard deviation over the steps, ms; NaN for a single one.
    """

    phase: str
    mean_ms: float
    share: float
    std_ms: float


def phase_rows(steps: Sequence[Mapping[str, float]]) -> list[PhaseRow]:
    """The average step by phase; the means sum to the mean step.

    Args:
        steps: Seconds by phase of each step, at least one.

    Returns:
        A row for each of `PHASES`, then one for the whole step.
    """
    totals = [sum(step.values()) for step in steps]
    whole = _row("step", totals, of=sum(totals))
    return [*(_row(phase, [step[phase] for step in steps], of=sum(totals)) for phase in PHASES), whole]


def _row(phase: str, seconds: Sequence[float], *, of: float) -> PhaseRow:
    mean = sum(seconds) / len(seconds)
    spread = math.nan
    if len(seconds) > 1:
        spread = math.sqrt(sum((s - mean) ** 2 for s in seconds) / (len(seconds) - 1))
    return PhaseRow(phase, 1e3 * mean, sum(seconds) / of if of else 0.0, 1e3 * spread)


@dataclass(frozen=True)
class Range:
    """A phase between two times of one clock."""

    phase: str
    start: float
    stop: float


def innermost(ranges: Sequence[Range]) -> Callable[[float], str]:
    """Which phase a moment belongs to: the innermost of nested ranges, `LOOP` outside of all.

    Args:
        ranges: Of one thread: any two lie apart or one in the other.
    """
    starts: list[float] = []
    phases: list[str] = []
    open_: list[Range] = []

    def close(until: float) -> None:
        while open_ and open_[-1].stop <= until:
            ended = open_.pop()
            starts.append(ended.stop)
            phases.append(open_[-1].phase if open_ else LOOP)

    for one in sorted(ranges, key=lambda one: (one.start, -one.stop)):
        close(one.start)
        starts.append(one.start)
        phases.append(one.phase)
        open_.append(one)
    close(math.inf)

    def phase_at(moment: float) -> str:
        found = bisect_right(starts, moment)
        return phases[found - 1] if found else LOOP

    return phase_at


def device_ms(ranges: Sequence[Range], launches: Sequence[tuple[float, float]], *, steps: int) -> dict[str, float]:
    """Device time by the phase in which the work was handed over, ms a step.

    The device works later than it is told to, and the backward pass is told from a thread of its own: only the moment
    of the launch says to which phase a kernel belongs.

    Args:
        ranges: Phases of the training thread.
        launches: (moment of the launch, microseconds on the device), on the clock of the ranges.
        steps: Steps that both cover.
    """
    phase_at = innermost(ranges)
    found = dict.fromkeys(PHASES, 0.0)
    for moment, microseconds in launches:
        found[phase_at(moment)] += microseconds / 1e3 / steps
    return found


@dataclass(frozen=True)
class OperatorRow:
    """An operator of the traced steps, without those that it calls.

    Args:
        name: As torch calls it.
        cpu_ms: On the CPU, ms a step.
        device_ms: On the device, ms a step.
        calls: Calls a step.
    """

    name: str
    cpu_ms: float
    device_ms: float
    calls: float


def render(
    rows: Sequence[PhaseRow],
    operators: Sequence[OperatorRow],
    *,
    first: int,
    timed: int,
    traced: int,
    on_device: Mapping[str, float] | None,
    step: str = "step",
) -> str:
    """The table as text.

    Args:
        rows: From `phase_rows`.
        operators: The largest ones first.
        first: Steps that were left out before.
        timed: Steps behind the rows.
        traced: Steps behind the operators and the device times.
        on_device: From `device_ms`; None on a CPU.
        step: What one of them is called.
    """
    whole = rows[-1].mean_ms
    lines = [
        f"Where the time of a {step} goes: {whole:.1f} ms, mean of {timed} after the first {first}",
        "",
        f"{'phase':24}{'ms':>10}{'share':>9}{'std':>9}" + ("" if on_device is None else f"{'device ms':>12}"),
    ]
    for row in rows:
        times = dict(on_device or {}) | {"step": sum((on_device or {}).values())}
        beside = "" if on_device is None else f"{times[row.phase]:12.1f}"
        spread = "" if math.isnan(row.std_ms) else f"{row.std_ms:.1f}"
        lines.append(f"{row.phase:24}{row.mean_ms:10.1f}{row.share:9.1%}{spread:>9}{beside}")
    if operators:
        unit = "device" if on_device is not None else "CPU"
        lines += [
            "",
            f"Largest operators by their own {unit} time, a {step}, mean of the {traced} after those; "
            "being traced makes them slower",
            "",
            f"{'operator':48}{'calls':>8}{'CPU ms':>10}" + ("" if on_device is None else f"{'device ms':>12}"),
        ]
        for one in operators:
            beside = "" if on_device is None else f"{one.device_ms:12.2f}"
            lines.append(f"{_short(one.name):48}{one.calls:8.0f}{one.cpu_ms:10.2f}{beside}")
    return "\n".join(lines) + "\n"


def _short(name: str, *, width: int = 46) -> str:
    return name if len(name) <= width else name[: width - 3] + "..."
