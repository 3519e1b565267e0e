"""Where the time of a step goes: a table of its phases and operators, and a trace of a few steps.

The first steps are left out: caches fill, kernels are chosen, memory is taken. The next ones are timed by a plain
clock, with nothing else watching. A few more are traced by torch's profiler, which costs time itself: from them come
the operators, the times on a device, and the trace, in which the phases stand as ranges. Then all watching ends.
"""

import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from segkit.callbacks.step_phases import (
    CALLBACKS,
    FETCH,
    LOSS,
    PHASES,
    OperatorRow,
    Range,
    Stopwatch,
    device_ms,
    ends_the_steps,
    hook_of,
    phase_of,
    phase_rows,
    render,
)
from segkit.callbacks.throughput import WaitClock
from segkit.runs.files import atomic_write
from segkit.runs.leftovers import temporary_beside

_logger = logging.getLogger(__name__)

_OPERATORS = 20


@dataclass(frozen=True)
class Window:
    """Which batches are watched.

    Args:
        left_out: The first ones, which are slower.
        timed: The next ones, by the clock.
        traced: The ones after those, by torch's profiler.
    """

    left_out: int = 5
    timed: int = 20
    traced: int = 4


class StepProfile(WaitClock):
    """Lightning's profiler, which writes `table.txt` and `trace.json`.

    Both are written whole when the last traced step has ended, before the next one begins; of a training that ends
    earlier the table is written of what was timed, of one that fails nothing. A step is a batch where gradients are
    accumulated.

    Args:
        folder: Where to; None on the ranks beside the first, which take their times and write nothing.
        window: Which batches.
        batches_per_step: Batches whose gradients are averaged before an optimizer step.
    """

    def __init__(self, folder: Path | None, *, window: Window | None = None, batches_per_step: int = 1) -> None:
        super().__init__()
        self.folder = folder
        self.window = window or Window()
        self._unit = "step" if batches_per_step == 1 else f"batch ({batches_per_step} a step)"
        self._watch = Stopwatch()
        self._ranges: list[AbstractContextManager[Any] | None] = []
        self._torch: profile | None = None
        self._finished = False

    @property
    def table(self) -> Path | None:
        """The table, as text."""
        return None if self.folder is None else self.folder / "table.txt"

    @property
    def trace(self) -> Path | None:
        """The trace, in Chrome's format."""
        return None if self.folder is None else self.folder / "trace.json"

    def watch_loss(self, loss: nn.Module) -> None:
        """Part the training step: before the loss it is the forward pass, after the loss metrics and logging."""
        loss.register_forward_pre_hook(lambda *_: self._switch(LOSS))
        loss.register_forward_hook(lambda *_: self._switch(CALLBACKS), always_call=True)

    def start(self, action_name: str) -> None:
        """A hook begins."""
        if not self._finished:
            self._heed(action_name)
        super().start(action_name)  # last: what was written just now is no waiting for data

    def stop(self, action_name: str) -> None:
        """A hook ends."""
        super().stop(action_name)
        if not self._finished:
            self._leave()

    def describe(self) -> None:
        """The training has ended: write what there is, where it was shorter than the window."""
        if not self._finished:
            self._watch.end()
            self._finish()

    def _heed(self, action: str) -> None:
        if hook_of(action) == FETCH:
            self._next_step()
        elif ends_the_steps(action):
            self._watch.end()
            if self._torch is not None:  # a validation is no step: the trace ends here
                self._finish()
        elif hook_of(action) == "on_exception":
            self._stop_torch()
            self._finished = True
        self._enter(phase_of(action))

    def _next_step(self) -> None:
        self._watch.end()
        done, window = len(self._watch.steps), self.window
        if done >= window.left_out + window.timed + window.traced:
            self._finish()
            return
        if done >= window.left_out + window.timed and self._torch is None and self.folder is not None:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell on stderr that it starts, and that it stops
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._torch = profile(activities=activities)
            self._torch.start()
        self._watch.begin()

    def _enter(self, phase: str) -> None:
        changed = self._torch is not None and phase != self._watch.phase
        self._watch.push(phase)
        self._ranges.append(_entered(phase) if changed else None)

    def _leave(self) -> None:
        if self._ranges and (left := self._ranges.pop()) is not None:
            left.__exit__(None, None, None)
        self._watch.pop()

    def _switch(self, phase: str) -> None:
        """From here on the innermost hook is at something else."""
        if not self._finished and self._ranges:
            self._leave()
            self._enter(phase)

    def _finish(self) -> None:
        """Stop watching, and write."""
        traced = self._stop_torch()
        self._finished = True
        table, trace = self.table, self.trace
        if table is None or trace is None:
            return
        window = self.window
        timed = self._watch.steps[window.left_out : window.left_out + window.timed]
        if not timed:
            few = f"{len(self._watch.steps)} steps, {window.left_out} are left out"
            _logger.warning("no step was timed: training had only %s; raise trainer.steps_per_epoch", few)
            return
        table.parent.mkdir(exist_ok=True)
        steps = len(self._watch.steps) - window.left_out - window.timed
        operators, on_device = [], None
        if traced is not None and steps > 0:
            temporary = temporary_beside(trace)
            try:
                traced.export_chrome_trace(str(temporary))
                temporary.replace(trace)
            finally:
                temporary.unlink(missing_ok=True)
            operators, on_device = _operators(traced, steps), _on_device(traced, steps)
        text = render(
            phase_rows(timed),
            operators,
            first=window.left_out,
            timed=len(timed),
            traced=steps,
            on_device=on_device,
            step=self._unit,
        )
        atomic_write(table, text)

    def _stop_torch(self) -> profile | None:
        traced, self._torch = self._torch, None
        if traced is None:
            return None
        for position in reversed(range(len(self._ranges))):
            if (left := self._ranges[position]) is not None:
                left.__exit__(None, None, None)
                self._ranges[position] = None
        traced.stop()
        return traced


def _entered(phase: str) -> AbstractContextManager[Any]:
    opened: AbstractContextManager[Any] = record_function(phase)
    opened.__enter__()
    return opened


def _operators(traced: profile, steps: int) -> list[OperatorRow]:
    """The largest operators, by their own time on the device where there is one."""
    rows = [
        OperatorRow(
            name=str(event.key),
            cpu_ms=event.self_cpu_time_total / 1e3 / steps,
            device_ms=event.self_device_time_total / 1e3 / steps,
            calls=event.count / steps,
        )
        for event in cast("Any", traced).key_averages()
        if event.device_type.name == "CPU" and event.key not in PHASES
    ]
    device = any(row.device_ms for row in rows)
    return sorted(rows, key=lambda row: row.device_ms if device else row.cpu_ms, reverse=True)[:_OPERATORS]


def _on_device(traced: profile, steps: int) -> dict[str, float] | None:
    """Time on the device by phase, ms a step; None where there is none."""
    events = [event for event in cast("Any", traced).events() if event.device_type.name == "CPU"]
    ranges = [Range(e.name, e.time_range.start, e.time_range.end) for e in events if e.name in PHASES]
    launches = [
        (event.time_range.start, float(sum(kernel.duration for kernel in event.kernels)))
        for event in events
        if event.kernels and event.name not in PHASES
    ]
    return device_ms(ranges, launches, steps=steps) if launches else None
