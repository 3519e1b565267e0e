"""The module's own arithmetic: rates, cool-down, plateau. Its steps are shown by the integration tests."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from segkit.evaluation import EvaluationSettings
from segkit.losses.blob_dice import BlobDiceLoss
from segkit.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from segkit.losses.partial_labels import PartialLabels
from segkit.module import schedules
from segkit.module.segmentation import SegmentationModule
from segkit.module.validation import whole_image_loss
from segkit.planning.plan import Normalisation, Plan
from segkit.types import Batch, Geometry, Labels, PreparedCase, Target

PLAN = Plan(
    name="tiny",
    dimensions=2,
    channels=("grey",),
    labels=Labels(("background", "object"), (0, 1)),
    spacing=(1.0, 1.0),
    unit="pixel",
    normalisation=(Normalisation("zscore"),),
    patch_size=(8, 8),
    batch_size=2,
    features=(4,),
    strides=((1, 1),),
    kernel_sizes=((3, 3),),
    blocks_per_stage=(1,),
    batch_dice=False,
    steps_per_epoch=5,
    max_epochs=4,
    learning_rate=0.1,
    validation_every_n_epochs=1,
    precision="32-true",
    tile_batch=1,
    flip_axes=(0, 1),
)


class Threshold(nn.Module):
    """One weight: the logit of the object is weight x intensity."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), self.weight * image], dim=1)


class SquaredError(nn.Module):
    needs = frozenset()

    def forward(self, logits: torch.Tensor, target: Target) -> torch.Tensor:
        return (logits[:, 1:] - target.label).square().mean()


def module(scheduler=schedules.poly, *, network: nn.Module | None = None, compiled=None) -> SegmentationModule:
    return SegmentationModule(
        network or Threshold(),
        SquaredError(),
        plan=PLAN,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        scheduler=scheduler,
        total_steps=20,
        settings=EvaluationSettings(),
        precision="32-true",
        compiled=compiled,
    )


def test_the_cooldown_brings_any_schedule_linearly_to_zero() -> None:
    made = module()
    multiplier = made.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    before = [multiplier(step) for step in range(20)]
    assert before == pytest.approx([(1 - step / 20) ** 0.9 for step in range(20)])
    made._cooldown = (8, 4)
    after = [multiplier(step) for step in range(20)]
    assert after[:8] == before[:8]
    assert after[8:13] == pytest.approx([before[8] * (1 - k / 4) for k in range(5)])
    assert after[12:] == [0.0] * 8


def test_a_second_request_does_not_prolong_the_cooldown() -> None:
    made = module()
    made.anneal(10)
    made.anneal(100)
    assert made._cooldown == (0, 10)


def test_the_schedule_stands_still_where_a_step_is_left_out_and_the_cooldown_begins_where_it_stands() -> None:
    made = module()
    scheduler = made.configure_optimizers()["lr_scheduler"]["scheduler"]
    for skipped in (False, True, True, False):
        scheduler.optimizer.step()
        made.skipped_step = skipped
        made.lr_scheduler_step(scheduler, None)
    assert scheduler.last_epoch == 2
    made.anneal(4)
    assert made._cooldown == (2, 4)


def test_the_plateau_is_not_lightnings_to_step() -> None:
    made = module(schedules.plateau)
    assert isinstance(made.configure_optimizers(), torch.optim.SGD)
    assert made._plateau is not None


def test_what_is_saved_comes_back() -> None:
    made, other = module(schedules.plateau), module(schedules.plateau)
    label = torch.tensor([[[[1, 0], [1, 1]]]])
    made._train_dice.update(torch.stack([1.0 - label[:, 0], label[:, 0].float()], dim=1), label)
    made.anneal(7)
    for each in (made, other):
        each.configure_optimizers()
    made._plateau.step(1.0)
    made._plateau.step(2.0)
    checkpoint: dict = {}
    made.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    other.on_fit_start()
    assert other._cooldown == (0, 7)
    assert other._plateau.num_bad_epochs == made._plateau.num_bad_epochs == 1
    torch.testing.assert_close(other._train_dice.compute(), made._train_dice.compute())


def test_whole_image_loss_is_the_configured_loss_of_the_logits(prepared_case) -> None:
    made = module()
    logits = torch.randn(2, 4, 4)
    expected = (logits[1] - torch.as_tensor(prepared_case.label.copy())).square().mean()
    found = whole_image_loss(made.loss.loss, logits, prepared_case, spacing=made.plan.spacing)
    torch.testing.assert_close(found, expected)


def test_whole_image_loss_reads_the_instances_of_the_case(prepared_case) -> None:
    """Ids of a case may have gaps; they are numbered as those of a patch are."""
    logits = torch.randn(2, 4, 4)
    ids = np.array([[0, 5, 0, 9]] * 4)
    cells = np.array([[5, 5, 5, 9]] * 4)
    case = replace(prepared_case, instances=ids, cells=cells)
    label = torch.as_tensor(prepared_case.label.copy())[None, None].long()
    numbered = {
        name: torch.from_numpy(np.searchsorted([0, 5, 9], each))[None, None]
        for name, each in (("instances", ids), ("cells", cells))
    }
    for loss in (BlobDiceLoss(), BlobDiceLoss(false_positives="background")):
        expected = loss(logits[None], Target(label=label, num_instances=2, **numbered))
        torch.testing.assert_close(whole_image_loss(loss, logits, case, spacing=(1.0, 1.0)), expected)
    with pytest.raises(ValueError, match="no cells"):
        whole_image_loss(BlobDiceLoss(), logits, prepared_case, spacing=(1.0, 1.0))


def test_whole_image_loss_knows_what_was_annotated(prepared_case) -> None:
    case = replace(prepared_case, annotated=frozenset({1}))
    logits = torch.randn(3, 4, 4)
    found = whole_image_loss(PartialLabels(CrossEntropyLoss()), logits, case, spacing=(1.0, 1.0))
    label = torch.as_tensor(case.label.copy()).long()[None, None]
    merged = torch.stack([logits[[0, 2]].logsumexp(0), logits[1]])
    torch.testing.assert_close(found, cross_entropy_loss(merged[None], label))
    everything = whole_image_loss(PartialLabels(CrossEntropyLoss()), logits, prepared_case, spacing=(1.0, 1.0))
    torch.testing.assert_close(everything, cross_entropy_loss(logits[None], label))


@pytest.fixture
def prepared_case():
    label = (np.arange(16).reshape(4, 4) % 2).astype(np.int8)
    geometry = Geometry((0, 1), (False, False), (4, 4), (1.0, 1.0), ((0, 4), (0, 4)), "pixel")
    return PreparedCase("c", "g", np.zeros((1, 4, 4), np.float32), None, label, label, None, geometry, "0")


def test_dropout_of_a_step_depends_on_the_seed_and_the_first_sample_alone() -> None:
    image = torch.zeros(2, 1, 4, 4)
    batch = Batch(image, Target(torch.zeros(2, 1, 4, 4, dtype=torch.long)), None, ("a", "b"), (6, 7))
    draws = []
    for first in (batch, batch, replace(batch, n=(8, 9))):
        torch.rand(3)  # whatever was drawn before
        module().on_train_batch_start(first, 0)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("limit", [0.5, 100.0, None])
def test_the_gradient_is_clipped_by_the_norm_that_is_known(limit) -> None:
    """Bitwise what torch makes of a norm of its own; the norm is used once."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(size, generator=generator) for size in (5, 70)]
    made = module()
    parameters, others = ([torch.nn.Parameter(torch.zeros_like(each)) for each in gradients] for _ in range(2))
    for moved in (parameters, others):
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.grad = gradient.clone()
    made.gradient_norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None:
        torch.nn.utils.clip_grad_norm_(others, limit)
    made.trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    made.configure_gradient_clipping(torch.optim.SGD(parameters, lr=1.0), limit, "norm")
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(parameters, others, strict=True))
    assert made.gradient_norm is None


def test_without_a_known_norm_or_by_value_lightning_clips() -> None:
    made = module()
    made.trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    for norm, algorithm, expected in ((None, "norm", [0.6, 0.8]), (torch.tensor(99.0), "value", [1.0, 1.0])):
        parameter = torch.nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([3.0, 4.0])
        made.gradient_norm = norm
        made.configure_gradient_clipping(torch.optim.SGD([parameter], lr=1.0), 1.0, algorithm)
        assert parameter.grad.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_weights_have_one_name_whether_a_compiled_network_stands_in_or_not(compiled: bool) -> None:
    network, calls = Threshold(), []

    def in_its_place(image: torch.Tensor) -> torch.Tensor:
        calls.append(image)
        return network(image)

    made = module(network=network, compiled=in_its_place if compiled else None)
    assert set(made.state_dict()) == {"network.weight"}
    batch = Batch(torch.ones(1, 1, 8, 8), Target(torch.zeros(1, 1, 8, 8, dtype=torch.int64)), None, ("a",), (0,))
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, barebones=False)
    made.log = lambda *_, **__: None  # there is no loop to log to
    made.trainer = trainer
    made.training_step(batch, 0).backward()
    assert len(calls) == compiled
    assert network.weight.grad is not None
