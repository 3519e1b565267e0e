"""R9: a loss or a gradient that is not finite never reaches the weights.

The step is left out, on all ranks or on none; its cases and what its images look like are named; the batch is kept;
the left-out steps are counted in the journal. Eleven in a row, or more than a hundredth of all steps, end the run with
the reason. The weights in every checkpoint are finite.
"""

import json
import os
import re
import socket
import time
from pathlib import Path

import pytest
import torch
from tests.callbacks.poison import HOWS, How, LeaveOut, Poison
from tests.callbacks.test_nonfinite_guard import Rows, Skipping
from tests.callbacks.toy import train

from segkit.callbacks.divergence import Limits
from segkit.callbacks.nonfinite_guard import NonFiniteGuard
from segkit.callbacks.skip_ledger import METRIC
from segkit.configuration.entry import report
from segkit.errors import Diverged, Preempted
from segkit.runs.checkpoints import read_checkpoint
from segkit.runs.index import load_index
from segkit.runs.manifest import checkpoint_path
from segkit.workflows.train import run

SMALL = ("plan.batch_size=2", "trainer.log_every_n_steps=2")
"""Two samples a step: step k uses samples 2k - 2 and 2k - 1."""


def rows(path: Path, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["value"]) for line in lines if line["key"] == key]


def assert_every_checkpoint_is_finite(path: Path) -> list[int]:
    entries = load_index(path / "checkpoints")
    for entry in entries:
        contents = read_checkpoint(checkpoint_path(path / "checkpoints", entry.step))
        for weights in (contents.model, contents.training or {}):
            assert all(bool(each.isfinite().all()) for each in weights.values() if each.is_floating_point())
    return [entry.step for entry in entries]


@pytest.mark.parametrize(
    ("overrides", "batches"),
    [((), 1), (("trainer.accumulate=2", "optimizer=sgd"), 2)],
    ids=["adamw", "accumulated, sgd"],
)
def test_poisoned_steps_leave_no_trace_in_the_weights(
    run_config, end_state, assert_bitwise_equal, caplog, overrides: tuple[str, ...], batches: int
) -> None:
    """A NaN voxel in step 2, a NaN loss in step 4, an infinite gradient in step 5; always a step's last batch."""
    last = 2 * (batches - 1)
    at = {how: 2 * batches * (step - 1) + last for how, step in zip(HOWS, (2, 4, 5), strict=True)}
    poisons = [Poison([n], how) for how, n in at.items()]
    poisoned = run(run_config("poisoned", *SMALL, *overrides), callbacks=poisons).directory.path
    left_out = run(run_config("left-out", *SMALL, *overrides), callbacks=[LeaveOut(at.values())]).directory.path
    one, other = end_state(poisoned), end_state(left_out)
    assert one.pop("metrics") != other.pop("metrics")  # the poisoned one tells of it
    assert_bitwise_equal(one, other)
    assert (one["step"], one["n"]) == (6, 12 * batches)
    assert rows(poisoned, METRIC) == [(2, 1.0), (4, 2.0), (6, 3.0)]
    assert assert_every_checkpoint_is_finite(poisoned) == [3, 6]
    for step, n in zip((2, 4, 5), at.values(), strict=True):
        batch = torch.load(poisoned / "nonfinite" / f"step-{step:08d}.pt", weights_only=True)
        assert batch["n"] == [n, n + 1]
        names = ", ".join(dict.fromkeys(batch["case_id"]))
        assert re.search(rf"step {step}: .*cases {names} \(n {n}-{n + 1}\); image: mean", caplog.text)


def test_a_poisoned_run_resumes_to_the_bit(run_config, end_state, assert_bitwise_equal, stop_after, size) -> None:
    overrides = (*SMALL, "trainer.ema_decay=0.9", "trainer.log_every_n_steps=3")
    poison = [2, 8]  # steps 2 and 5, told with steps 3 and 6
    whole = end_state(run(run_config("whole", *overrides), callbacks=[Poison(poison)]).directory.path)
    assert METRIC in whole["metrics"]
    for step in size([2], [1, 2, 3, 4, 5]):
        config = run_config(f"stopped-{step}", *overrides)
        with pytest.raises(Preempted):
            run(config, callbacks=[Poison(poison), stop_after(step)])
        resumed = run(config, callbacks=[Poison(poison)]).directory.path
        assert_bitwise_equal(whole, end_state(resumed))


def test_eleven_in_a_row_end_the_run_in_every_life(run_config, capsys, size) -> None:
    """Every step after the fourth is poisoned; the checkpoints of the epochs in between hold the weights before it."""
    config = run_config("diverging", *SMALL, "trainer.max_epochs=9", "checkpoint.keep=9")
    root = Path(config["paths"]["runs"]) / "diverging"
    for _ in range(size(2, 4)):
        with pytest.raises(Diverged, match="11 steps in a row") as ended:
            run(config, callbacks=[Poison(range(8, 1000), size("image", "loss"))])
        assert ended.value.where.startswith("optimizer step 15, cases ")
        status = json.loads((root / "STATUS.json").read_text())
        assert status["state"] == "failed"
        assert "Training has failed: too many steps" in status["reason"]
        steps = assert_every_checkpoint_is_finite(root)
        assert steps == [3, 6, 9, 12]
        assert len(list((root / "nonfinite").iterdir())) == 3
    capsys.readouterr()
    assert report(ended.value) == 1
    said = capsys.readouterr().err
    assert "trainer.gradient_clip" in said
    assert "Traceback" not in said
    assert "bug" not in said
    # The first poisoned step is the fifth: its checkpoints hold what the fourth has made.
    weights = [read_checkpoint(checkpoint_path(root / "checkpoints", step)).model for step in (6, 12)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _one_of_two(rank: int, folder: Path, port: int, at: list[int], how: How, late: bool) -> None:
    """A rank of a training of two of which the second is poisoned; writes down what it ends with."""
    place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()})
    watch = NonFiniteGuard(folder / "bad", Rows(), limits=Limits(share=1.0), late=late)
    module, _ = train(
        folder / "two",
        module=Skipping(fused=late),
        callbacks=(Poison(at if rank == 1 else [], how), watch),
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )
    facts = {"weights": module.state_dict(), "skipped": watch.ledger.skipped, "rows": watch.ledger.journal.rows}
    torch.save(facts, folder / f"rank-{rank}.pt")


@pytest.mark.parametrize(
    ("how", "late"),
    [*((how, False) for how in HOWS), *(pytest.param(how, True, marks=pytest.mark.slow) for how in HOWS)],
)
def test_one_rank_s_poison_is_left_out_by_both(tmp_path: Path, how: How, late: bool) -> None:
    """Both ranks are given the same samples: what remains must be the run of one process without those steps."""
    at = [2, 14]
    ranks = torch.multiprocessing.start_processes(
        _one_of_two, args=(tmp_path, _free_port(), at, how, late), nprocs=2, join=False, start_method="fork"
    )
    try:
        end = time.monotonic() + 60
        while not ranks.join(timeout=max(0.0, end - time.monotonic())):
            assert time.monotonic() < end, "a rank waits for one that has decided otherwise"
    finally:
        for process in ranks.processes:
            process.kill()
    one, _ = train(tmp_path / "one", module=Skipping(fused=late), callbacks=(LeaveOut(at),))
    ends = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank in ends:
        assert rank["skipped"] == 2
        assert all(torch.equal(rank["weights"][name], value) for name, value in one.state_dict().items())
    assert [rank["rows"] for rank in ends] == [[(4, METRIC, 1.0), (8, METRIC, 2.0)], []]
    assert sorted(path.name for path in (tmp_path / "bad").iterdir()) == ["step-00000002.pt", "step-00000008.pt"]
