"""The memory of a training: told at the start, right, and refused where it is not there."""

import re
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from tests.planning.profiled import Peak

from segkit.errors import OutOfMemory
from segkit.planning.training_memory import predict_training_memory
from segkit.runs.index import load_index
from segkit.workflows.train import run


class _Measured(Callback):
    """The peak of the trainer's own steps, augmentation and bookkeeping included, beside the prediction."""

    def on_train_start(self, trainer, module):
        self.predicted = predict_training_memory(
            module.network, module.loss.loss, module.plan, optimizer=module._optimizer_factory
        )
        self.peak = Peak(held=sum(each.nbytes for each in module.state_dict().values()))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            self.measured = self.peak.stop()


@pytest.fixture
def one_epoch(run_config):
    def make(name, *overrides):
        return run_config(name, "trainer.max_epochs=1", "trainer.check_memory=true", *overrides)

    return make


def test_gradient_checkpointing_takes_less_in_a_run_and_changes_no_digit(
    one_epoch, end_state, assert_bitwise_equal, capsys
):
    measured = {}
    for name in ("kept", "recomputed"):
        on = "true" if name == "recomputed" else "false"
        config, measured[name] = one_epoch(name, f"trainer.gradient_checkpointing={on}"), _Measured()
        run(config, callbacks=[measured[name]])
    root = Path(config["paths"]["runs"])
    assert_bitwise_equal(end_state(root / "kept"), end_state(root / "recomputed"))
    for each in measured.values():
        assert each.predicted.step == pytest.approx(each.measured, rel=0.1)
    assert measured["recomputed"].measured < 0.85 * measured["kept"].measured
    assert re.search(r"memory      predicted \d+ MB for training \(.*activations \d+\)", capsys.readouterr().out)


def test_what_does_not_fit_is_refused_before_the_first_step(one_epoch):
    config = one_epoch("large", "plan.batch_size=1000000", "trainer.accumulate=2")
    with pytest.raises(OutOfMemory, match="Training would not fit into the memory of this machine") as refused:
        run(config)
    assert load_index(Path(config["paths"]["runs"]) / "large" / "checkpoints") == ()
    found = re.fullmatch(r"predicted ([\d.]+) GB for .* of ([\d.]+) GB free: ([\d.]+) times .*", refused.value.why)
    needed, free, times = map(float, found.groups())
    assert times == pytest.approx(needed / free, rel=0.01)
    assert times > 1
    # Each remedy with what training would take: half the batch takes half.
    mend = refused.value.mend
    keys = ["trainer.gradient_checkpointing=true", "plan.batch_size=500000 trainer.accumulate=4", "plan.patch_size="]
    places = [mend.index(key) for key in keys]
    assert places == sorted(places)
    sizes = [float(size) for size in re.findall(r"\[([\d.]+) GB\]", mend)]
    assert len(sizes) == 3
    assert max(sizes) < needed
    assert sizes[1] == pytest.approx(needed / 2, rel=0.02)


def test_without_the_check_nothing_is_predicted_and_it_begins(one_epoch, capsys):
    """The way past a prediction that is wrong: a batch of more patches than a machine holds is begun with."""
    config = one_epoch("unchecked", "plan.batch_size=1000000", "trainer.check_memory=false")

    class Begun(Exception):
        pass

    class Stop(Callback):
        def on_train_start(self, trainer, module):
            raise Begun

    with pytest.raises(Begun):
        run(config, callbacks=[Stop()])
    assert "not predicted (trainer.check_memory=false)" in capsys.readouterr().out
