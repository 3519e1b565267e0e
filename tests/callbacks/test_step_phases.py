import itertools
import math
import random
import statistics

import pytest

from segkit.callbacks.step_phases import (
    BACKWARD,
    CALLBACKS,
    FORWARD,
    GUARD,
    LOOP,
    OPTIMIZER,
    PHASES,
    WAIT,
    OperatorRow,
    Range,
    Stopwatch,
    device_ms,
    ends_the_steps,
    innermost,
    phase_of,
    phase_rows,
    render,
)


@pytest.mark.parametrize(
    ("action", "phase"),
    [
        ("[_TrainingEpochLoop].train_dataloader_next", WAIT),
        ("[Strategy]DDPStrategy.backward", BACKWARD),
        ("[Strategy]SingleDeviceStrategy.training_step", FORWARD),
        ("[LightningModule]Mine.optimizer_step", OPTIMIZER),
        ("[Callback]NonFiniteGuard.on_before_optimizer_step", GUARD),
        ("[LightningModule]Mine.configure_gradient_clipping", GUARD),
        ("[Callback]Recording{'every': 0.5}.on_train_batch_end", CALLBACKS),
        ("run_training_batch", LOOP),
    ],
)
def test_the_phase_of_an_action(action, phase):
    assert phase_of(action) == phase


def test_what_comes_after_the_steps():
    assert ends_the_steps("[Callback]Throughput.on_validation_start")
    assert ends_the_steps("[LightningModule]Mine.on_train_epoch_end")
    assert not ends_the_steps("[Callback]Recording.on_train_batch_end")


def test_every_moment_of_a_step_is_charged_once_to_the_innermost_phase():
    now = 0.0
    watch = Stopwatch(lambda: now)
    moves = random.Random(0)
    expected, depth, total = [], [], 0.0
    for _ in range(20):
        watch.begin()
        expected.append(dict.fromkeys(PHASES, 0.0))
        for _ in range(50):
            passed = moves.random()
            now += passed
            total += passed
            expected[-1][depth[-1] if depth else LOOP] += passed
            if depth and moves.random() < 0.5:
                watch.pop()
                depth.pop()
            else:
                depth.append(moves.choice(PHASES))
                watch.push(depth[-1])
    watch.end()
    now += 100.0  # between two steps nothing is charged
    watch.end()
    assert len(watch.steps) == 20
    for step, known in zip(watch.steps, expected, strict=True):
        assert step == pytest.approx(known, abs=1e-9)
    assert sum(itertools.chain.from_iterable(step.values() for step in watch.steps)) == pytest.approx(total)


def test_the_phases_sum_to_the_step():
    draw = random.Random(1)
    steps = [{phase: draw.random() for phase in PHASES} for _ in range(7)]
    *rows, whole = phase_rows(steps)
    assert [row.phase for row in rows] == list(PHASES)
    assert sum(row.mean_ms for row in rows) == pytest.approx(whole.mean_ms)
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    for row in rows:
        seconds = [step[row.phase] for step in steps]
        assert row.mean_ms == pytest.approx(1e3 * statistics.fmean(seconds))
        assert row.std_ms == pytest.approx(1e3 * statistics.stdev(seconds))
    assert whole.std_ms == pytest.approx(1e3 * statistics.stdev(sum(step.values()) for step in steps))
    assert math.isnan(phase_rows(steps[:1])[0].std_ms)


def _nested(draw, start, stop, depth):
    """Random ranges within (start, stop), any two apart or one in the other."""
    if depth == 0 or stop - start < 1e-3:
        return []
    cuts = sorted(draw.uniform(start, stop) for _ in range(4))
    return [
        found
        for low, high in ((cuts[0], cuts[1]), (cuts[2], cuts[3]))
        for found in (Range(draw.choice(PHASES), low, high), *_nested(draw, low, high, depth - 1))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_innermost_range_is_the_shortest_that_holds_the_moment(seed):
    draw = random.Random(seed)
    ranges = _nested(draw, 0.0, 1.0, 4)
    draw.shuffle(ranges)
    phase_at = innermost(ranges)
    for moment in (draw.uniform(-0.1, 1.1) for _ in range(300)):
        holding = [one for one in ranges if one.start <= moment < one.stop]
        expected = min(holding, key=lambda one: one.stop - one.start).phase if holding else LOOP
        assert phase_at(moment) == expected


def test_device_time_belongs_to_the_phase_of_the_launch():
    ranges = [Range(OPTIMIZER, 0.0, 100.0), Range(FORWARD, 10.0, 40.0), Range(BACKWARD, 50.0, 90.0)]
    launches = [(5.0, 1e3), (10.0, 2e3), (39.0, 4e3), (45.0, 8e3), (60.0, 16e3), (100.0, 32e3)]
    found = device_ms(ranges, launches, steps=2)
    assert {phase: ms for phase, ms in found.items() if ms} == {OPTIMIZER: 4.5, FORWARD: 3.0, BACKWARD: 8.0, LOOP: 16.0}
    assert sum(found.values()) == sum(us for _, us in launches) / 1e3 / 2


def test_the_table_says_what_was_measured():
    rows = phase_rows([dict.fromkeys(PHASES, 0.01), dict.fromkeys(PHASES, 0.03)])
    operators = [OperatorRow("aten::convolution", 1.5, 12.25, 3.0), OperatorRow("x" * 80, 1.0, 0.5, 1.0)]
    words = {"first": 5, "timed": 2, "traced": 4}
    on_cpu = render(rows, operators, **words, on_device=None)
    assert "Where the time of a step goes: 200.0 ms, mean of 2 after the first 5" in on_cpu
    assert f"{FORWARD:24}      20.0    10.0%     14.1" in on_cpu
    assert "device" not in on_cpu
    assert "x" * 43 + "..." in on_cpu
    on_gpu = render(rows, operators, **words, on_device=dict.fromkeys(PHASES, 1.0) | {FORWARD: 7.0})
    assert f"{FORWARD:24}      20.0    10.0%     14.1         7.0" in on_gpu
    assert f"{'step':24}     200.0   100.0%    141.4        16.0" in on_gpu
    assert f"{'aten::convolution':48}       3      1.50       12.25" in on_gpu
    assert "operator" not in render(rows, [], **words, on_device=None)
