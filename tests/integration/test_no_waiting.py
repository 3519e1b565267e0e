"""Between two logging intervals the host reads nothing from the device: on a GPU each read would be a wait for it."""

import traceback
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segkit.augmentation.recipe import Recipe
from segkit.callbacks.late_verdict import Arrival
from segkit.callbacks.nonfinite_guard import NonFiniteGuard
from segkit.workflows.train import run

OPERATORS = frozenset(
    f"aten::{name}"
    for name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")
)
"""What `.item()`, `bool()`, `float()`, indexing by a mask and sizes that depend on values become."""
METHODS = ("tolist", "numpy", "item", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__")
"""What reads a tensor on the CPU without an operator that could be seen."""
LOGGED = 5
SHORT = (
    "trainer.steps_per_epoch=7",
    "trainer.max_epochs=1",
    f"trainer.log_every_n_steps={LOGGED}",
    "augmentation=nnunet",
    "tracking=none",
)


class Reads(TorchDispatchMode):
    """Where something was read from a tensor, while `watching`.

    The loader works on the host, and so it may.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watching, self.allowed = False, 0
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.name in OPERATORS:
            self.note(function._schema.name)
        return function(*args, **(kwargs or {}))

    def note(self, what: str) -> None:
        if not self.watching or self.allowed:
            return
        frames = [frame for frame in traceback.extract_stack() if "/tests/" not in frame.filename]
        if any(frame.filename.endswith("segkit/data/loader.py") for frame in frames):
            return
        place = next(
            frame for frame in reversed(frames) if "/segkit/" in frame.filename or "/lightning/" in frame.filename
        )
        self.found.append(f"{what} in {place.filename.rpartition('/')[2]}:{place.lineno}")


class Watch(Callback):
    """Watches the fetching of batches and the steps, but for the logged ones and an epoch's first and last."""

    def __init__(self, reads: Reads, *, late: bool) -> None:
        self.reads, self.late, self.steps = reads, late, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        next(each for each in trainer.callbacks if isinstance(each, NonFiniteGuard)).late = self.late
        self.reads.__enter__()

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.reads.watching = 0 < batch_idx < trainer.num_training_batches - 1 and self._unlogged(trainer)
        self.steps += self.reads.watching

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # What follows a logged step, in this hook of the other callbacks, is the logging.
        self.reads.watching = self.reads.watching and trainer.global_step % LOGGED != 0 and self._unlogged(trainer)

    @staticmethod
    def _unlogged(trainer: Trainer) -> bool:
        return (trainer.global_step + 1) % LOGGED != 0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.reads.watching = False
        self.reads.__exit__(None, None, None)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    made = Reads()

    def watched(owner: Any, name: str, what: str) -> None:
        original = getattr(owner, name)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            # A number made into a tensor on a device is copied there, and waited for.
            if owner is Tensor or kwargs.get("device") is not None:
                made.note(what)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, replacement)

    for name in METHODS:
        watched(Tensor, name, name)
    for name in ("tensor", "as_tensor"):
        watched(torch, name, f"torch.{name}(device=...)")
    read = Arrival.read

    def arrived(self: Arrival) -> list[float]:
        made.allowed += 1  # the one read there is: of what has been on its way since the step before
        try:
            return read(self)
        finally:
            made.allowed -= 1

    monkeypatch.setattr(Arrival, "read", arrived)
    apply = Recipe.apply

    def as_on_a_gpu(self: Recipe, *args: Any, together: bool) -> Any:
        return apply(self, *args, together=True)

    monkeypatch.setattr(Recipe, "apply", as_on_a_gpu)
    return made


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("trainer.ema_decay=0.9",), id="adamw, averaged weights"),
        pytest.param(("optimizer=sgd", "trainer.accumulate=2"), id="sgd, accumulation", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_read_between_two_logged_steps(run_config, reads: Reads, overrides: tuple[str, ...]) -> None:
    watch = Watch(reads, late=True)
    run(run_config("watched", *SHORT, *overrides), callbacks=[watch])
    assert watch.steps >= 4
    assert reads.found == []


def test_the_watch_sees_the_one_read_a_step_of_a_host_that_waits(run_config, reads: Reads) -> None:
    """Without this the test above could not fail."""
    watch = Watch(reads, late=False)
    run(run_config("waiting", *SHORT), callbacks=[watch])
    assert len(reads.found) == watch.steps >= 4
    assert all(place.startswith("tolist in nonfinite_guard.py") for place in reads.found)
