"""Out of memory becomes one message; any other error stays what it is."""

import errno
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from segkit.configuration.entry import report
from segkit.errors import DataError, OutOfMemory
from segkit.planning.plan import Normalisation, Plan
from segkit.runs.index import load_index
from segkit.types import Labels
from segkit.workflows.out_of_memory import (
    explain_out_of_memory,
    is_out_of_memory,
    remedies,
    smaller_patch,
    stage_of,
)
from segkit.workflows.train import run

PLAN = Plan(
    name="base",
    dimensions=3,
    channels=("MRI",),
    labels=Labels(("background", "a"), (0, 1)),
    spacing=(1.0, 1.0, 1.0),
    unit="mm",
    normalisation=(Normalisation("zscore"),),
    patch_size=(128, 96, 64),
    batch_size=5,
    features=(4, 8, 16),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 1)),
    kernel_sizes=((3, 3, 3),) * 3,
    blocks_per_stage=(1, 1, 1),
    batch_dice=False,
    steps_per_epoch=2,
    max_epochs=1,
    learning_rate=1e-3,
    validation_every_n_epochs=1,
    precision="32-true",
    tile_batch=4,
    flip_axes=(0, 1, 2),
)
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation")


def allocate_too_much() -> None:
    torch.empty(10**15)


def raised(act: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        act()
    return caught.value


def chained() -> None:
    try:
        allocate_too_much()
    except RuntimeError as error:
        raise RuntimeError("the backend compiler failed") from error


@pytest.mark.parametrize(
    "error",
    [
        raised(allocate_too_much),
        raised(lambda: np.empty(10**17)),
        raised(lambda: bytearray(10**17)),
        raised(chained),
        CUDA,
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_a_lack_of_memory(error: BaseException) -> None:
    assert is_out_of_memory(error)
    told = explain_out_of_memory(error, plan=PLAN, stage="training", device="cuda:0")
    assert isinstance(told, OutOfMemory)
    assert told.exit_code == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        OutOfMemory("Out of memory in training"),
        DataError("Image of case 7: out of memory"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_none(error: BaseException) -> None:
    assert explain_out_of_memory(error, plan=PLAN, stage="training", device="cpu") is None


def test_the_message_names_sizes_checkpoint_and_the_keys_in_order() -> None:
    told = explain_out_of_memory(
        CUDA, plan=PLAN, stage="training", device="cuda:0", accumulate=2, checkpoint=Path("/runs/x/step-00000030")
    )
    assert told is not None
    assert told.what == (
        "Out of memory in training: the memory of cuda:0 is too small for this run. "
        "The last checkpoint is whole: /runs/x/step-00000030."
    )
    assert told.where == "cuda:0: plan base, patch 128 x 96 x 64, batch 5, 32-true"
    assert told.why == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."
    assert told.mend == (
        "plan.batch_size=2 trainer.accumulate=6 (as many samples in a step), or plan.patch_size=[76,80,64], "
        "or plan=small, or trainer.precision=bf16-mixed; with another run_name, since a run keeps its plan; "
        "look with nvidia-smi whether other programs hold memory of the device"
    )


def test_gradient_checkpointing_comes_first_where_it_can_be_switched_on() -> None:
    sizes = {"trainer.gradient_checkpointing=true": 3 * 10**9, "plan=small": 4 * 10**8}
    told = explain_out_of_memory(
        CUDA,
        plan=PLAN,
        stage="training",
        device="cuda:0",
        recompute=True,
        predicted=lambda remedy: sizes.get(remedy.keys),
    )
    assert told is not None
    assert told.mend.startswith(
        "trainer.gradient_checkpointing=true (the same numbers, about a third more time) [3.0 GB], "
        "and the same run_name goes on; or plan.batch_size=2 trainer.accumulate=3 "
    )
    assert "plan=small [400 MB], or" in told.mend
    validating = explain_out_of_memory(CUDA, plan=PLAN, stage="validation", device="cuda:0", recompute=True)
    assert validating is not None
    assert "gradient_checkpointing" not in validating.mend


def test_each_remedy_knows_what_it_makes_of_the_plan() -> None:
    found = {each.keys: each for each in remedies(PLAN, "training", device="cuda:0", accumulate=2, recompute=True)}
    assert [each.same_run for each in found.values()] == [True, False, False, False, False]
    assert found["trainer.gradient_checkpointing=true"].recompute
    assert found["plan.batch_size=2 trainer.accumulate=6"].plan == replace(PLAN, batch_size=2)
    assert found["plan.patch_size=[76,80,64]"].plan == replace(PLAN, patch_size=(76, 80, 64))
    assert found["plan=small"].rung == "small"


def test_in_validation_the_tiles_come_first_and_belong_to_the_same_run() -> None:
    told = explain_out_of_memory(CUDA, plan=PLAN, stage="validation", device="cuda:0")
    assert told is not None
    assert "No checkpoint had been written yet." in told.what
    assert "tile batch 4" in told.where
    assert told.mend.startswith("validation.tile_batch=1, and the same run_name goes on")
    assert "plan.batch_size" not in told.mend


def test_what_cannot_help_is_not_named() -> None:
    least = replace(PLAN, name="tiny", batch_size=1, patch_size=(8, 8, 4), precision="bf16-mixed")
    told = explain_out_of_memory(MemoryError(), plan=least, stage="training", device="cpu")
    assert told is not None
    assert told.mend == "a machine with more memory"
    assert told.why == "MemoryError: no further words"


def test_a_workers_lack_of_memory_is_mended_by_fewer_workers() -> None:
    error = MemoryError("Caught MemoryError in DataLoader worker process 0.\nTraceback ...\nUnable to allocate 7 GiB")
    assert stage_of(error) == "loading"
    told = explain_out_of_memory(error, plan=PLAN, stage="loading", device="cuda:0")
    assert told is not None
    assert "the machine's memory" in told.what
    assert told.mend.startswith("data.workers=<fewer>")
    assert told.why == "MemoryError: Unable to allocate 7 GiB"


@pytest.mark.parametrize("patch", [(128, 96, 64), (32, 32, 32), (256, 16, 16), (12, 12, 6)])
def test_a_smaller_patch_is_at_most_half_and_still_divided(patch: tuple[int, ...]) -> None:
    smaller = smaller_patch(replace(PLAN, patch_size=patch))
    assert smaller is not None
    assert math.prod(smaller) <= math.prod(patch) / 2
    assert all(new <= old and new % divisor == 0 for new, old, divisor in zip(smaller, patch, (4, 4, 2), strict=True))


class _Exhaust(Callback):
    """A real allocation that cannot succeed, in the second epoch: in a step, or when the network runs in validation."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1:
            if self.where == "training":
                allocate_too_much()
            module.network.register_forward_hook(lambda network, *_: None if network.training else allocate_too_much())


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_run_ends_with_the_message_and_its_checkpoint(run_config, capsys, where: str) -> None:
    config = run_config("big")
    with pytest.raises(OutOfMemory) as ended:
        run(config, callbacks=[_Exhaust(where)])
    root = Path(config["paths"]["runs"]) / "big"
    assert f"Out of memory in {where}: the machine's memory" in ended.value.what
    assert f"The last checkpoint is whole: {root / 'checkpoints' / 'step-00000003'}." in ended.value.what
    assert "DefaultCPUAllocator: can't allocate memory" in ended.value.why
    assert [entry.step for entry in load_index(root / "checkpoints")] == [3]
    assert '"failed"' in (root / "STATUS.json").read_text()
    capsys.readouterr()
    assert report(ended.value) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "bug" not in said
    if where == "training":
        assert run(config) is not None  # where there is memory, the same command goes on
