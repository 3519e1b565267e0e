"""Predicted against measured: the step that trains, under torch's profiler, and on a GPU by its allocator."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.planning.profiled import Peak
from torch import nn

from segkit.inference.predictor import autocast
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.deep_supervision import DeepSupervision
from segkit.losses.dice import DiceLoss
from segkit.metrics.training_dice import sample_counts
from segkit.networks.checkpointing import checkpoint_stages
from segkit.networks.memory_format import to_device
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.unet import UNet
from segkit.planning.plan import Normalisation, Plan
from segkit.planning.training_memory import (
    CannotPredict,
    TrainingMemory,
    can_recompute,
    predict_training_memory,
    size_text,
)
from segkit.types import Labels, Target

ADAMW = partial(torch.optim.AdamW, lr=1e-3, fused=True)
SGD = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


def plan_of(patch, batch, *, features=(8, 16, 32), precision="32-true"):
    axes, stages = len(patch), len(features)
    return Plan(
        name="small",
        dimensions=axes,
        channels=("a",),
        labels=Labels(("background", "x", "y"), (0, 1, 2)),
        spacing=(1.0,) * axes,
        unit="mm",
        normalisation=(Normalisation("zscore"),),
        patch_size=patch,
        batch_size=batch,
        features=features,
        strides=((1,) * axes,) + ((2,) * axes,) * (stages - 1),
        kernel_sizes=((3,) * axes,) * stages,
        blocks_per_stage=(1,) * stages,
        batch_dice=False,
        steps_per_epoch=1,
        max_epochs=1,
        learning_rate=1e-3,
        validation_every_n_epochs=1,
        precision=precision,
        tile_batch=1,
        flip_axes=(),
        channels_last=precision == "bf16-mixed",
    )


def network_of(plan, kind="plain"):
    shape = {"features": plan.features, "strides": plan.strides, "kernel_sizes": plan.kernel_sizes}
    if kind == "residual":
        return ResidualUNet(1, 3, **shape, dimensions=plan.dimensions, blocks_per_stage=2)
    return UNet(1, 3, **shape, dimensions=plan.dimensions, attention=kind == "attention")


def loss_of():
    return WeightedSum({"dice": DiceLoss(), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0})


class Step:
    """One training step after another, in the trainer's order; counts what is there between them."""

    def __init__(self, network, plan, optimizer, device="cpu"):
        self.network = to_device(network, device, channels_last=plan.channels_last).train()
        self.plan, self.loss = plan, DeepSupervision(loss_of())
        self.optimizer = optimizer(network.parameters())
        shape = (plan.batch_size, 1, *plan.patch_size)
        self.image = torch.randn(shape, device=device)
        self.target = Target(label=torch.randint(0, 3, shape, device=device))
        self.valid = torch.ones(shape, dtype=torch.bool, device=device)

    def forward(self):
        with autocast(self.image.device, self.plan.precision):
            outputs = self.network(self.image)
            value = self.loss(outputs, self.target)
            with torch.no_grad():
                sample_counts(outputs[0].detach(), self.target.label)
        return value

    def __call__(self):
        value = self.forward()
        self.optimizer.zero_grad()
        value.backward()
        del value
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
        self.optimizer.step()

    def held(self):
        state = [each for states in self.optimizer.state.values() for each in states.values()]
        tensors = [*self.network.parameters(), self.image, self.target.label, self.valid, *state]
        return sum(each.nbytes for each in tensors if isinstance(each, torch.Tensor))

    def peak(self):
        self()
        self.optimizer.zero_grad()
        peak = Peak(held=self.held())
        for _ in range(2):  # the first one's gradients are freed by the second
            self()
        return peak.stop()


SHAPES = {
    "3D plain": ("plain", plan_of((24, 24, 24), 2), ADAMW),
    "3D plain bf16": ("plain", plan_of((24, 24, 24), 2, features=(16, 32), precision="bf16-mixed"), ADAMW),
    "3D one sample": ("plain", plan_of((18, 28, 22), 1), ADAMW),
    "3D attention": ("attention", plan_of((24, 16, 24), 2), SGD),
    "3D residual": ("residual", plan_of((16, 24, 16), 4, features=(16, 32)), ADAMW),
    "2D residual": ("residual", plan_of((96, 64), 4), ADAMW),
    "2D plain bf16": ("plain", plan_of((96, 64), 4, precision="bf16-mixed"), SGD),
    "2D large batch": ("plain", plan_of((32, 32), 40), ADAMW),  # more samples than are traced
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_step_takes_what_was_predicted(name):
    kind, plan, optimizer = SHAPES[name]
    network = network_of(plan, kind)
    predicted = predict_training_memory(network, loss_of(), plan, optimizer=optimizer)
    measured = Step(network, plan, optimizer).peak()
    assert predicted.step == pytest.approx(measured, rel=0.1)


def test_recomputed_stages_take_less_as_predicted():
    kind, plan, optimizer = SHAPES["2D residual"]
    network = network_of(plan, kind)
    kept = predict_training_memory(network, loss_of(), plan, optimizer=optimizer)
    recomputed = predict_training_memory(network, loss_of(), plan, optimizer=optimizer, recompute=True)
    assert can_recompute(network) is True  # a prediction leaves the network as it is
    measured_kept = Step(network, plan, optimizer).peak()
    checkpoint_stages(network)
    assert can_recompute(network) is False
    assert recomputed == predict_training_memory(network, loss_of(), plan, optimizer=optimizer)
    measured = Step(network, plan, optimizer).peak()
    assert recomputed.step == pytest.approx(measured, rel=0.1)
    assert recomputed.step < 0.7 * kept.step
    assert measured < 0.7 * measured_kept


def test_what_is_not_activations_is_exact():
    plan = plan_of((16, 16), 2)
    network = network_of(plan)
    weights = sum(each.nbytes for each in network.parameters())
    memory = predict_training_memory(network, loss_of(), plan, optimizer=SGD)
    assert (memory.parameters, memory.gradients, memory.optimizer) == (weights, weights, weights)
    assert memory.batch == 2 * 16 * 16 * (4 + 8 + 1)  # image, label, valid
    adam = predict_training_memory(network, loss_of(), plan, optimizer=ADAMW)
    assert adam.optimizer == 2 * weights + 4 * len(list(network.parameters()))  # and each its count of steps
    averaged = predict_training_memory(network, loss_of(), plan, optimizer=SGD, averaged=True)
    assert averaged.parameters == 2 * weights
    assert averaged.step == memory.step + weights


def test_activations_grow_with_the_batch_and_validation_with_its_images():
    plan = plan_of((32, 32), 2)
    network = network_of(plan)
    predict = partial(predict_training_memory, network, loss_of(), optimizer=SGD)
    one, two = predict(plan), predict(replace(plan, batch_size=4))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    tiles = predict(replace(plan, tile_batch=32))
    assert tiles.validation > tiles.step == one.step
    assert tiles.peak == tiles.validation
    large = predict(plan, largest_image=(2000, 1000))
    assert large.validation == one.validation + 2 * 4 * 3 * 2000 * 1000


def test_network_random_numbers_and_gradients_stay_as_they_are():
    plan = plan_of((16, 16), 2)
    network = network_of(plan).eval()
    network.requires_grad_(False)
    network.decoder.requires_grad_(True)
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    memory = predict_training_memory(network, loss_of(), plan, optimizer=SGD)
    assert memory.gradients == sum(each.nbytes for each in network.decoder.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(each.grad is None for each in network.parameters())


class Own(nn.Module):
    """A network of somebody else's: batch normalisation, dropout, tied weights, a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = self.second
        self.last = nn.Conv2d(8, 3, 1)
        self.scale = torch.ones(1, 8, 1, 1)

    def forward(self, image):
        features = nn.functional.dropout(self.norm(self.first(image)), 0.1, self.training) * self.scale
        return self.last(self.third(self.second(features).relu()).relu())


class Peeks(Own):
    """One that decides by a value."""

    def forward(self, image):
        return super().forward(image) if image.mean() < 1e9 else image


def test_any_network_is_predicted_or_said_not_to_be():
    plan = plan_of((64, 64), 2)
    network = Own()
    predicted = predict_training_memory(network, loss_of(), plan, optimizer=ADAMW)
    assert int(network.norm.num_batches_tracked) == 0
    assert (
        predicted.parameters == sum(v.nbytes for v in network.state_dict().values()) - network.second.weight.nbytes - 32
    )
    assert predicted.step > 5 * 2 * 8 * 64 * 64 * 4  # at least five maps are kept
    with pytest.raises(CannotPredict, match="DataDependent"):
        predict_training_memory(Peeks(), loss_of(), plan, optimizer=ADAMW)


def test_text():
    memory = TrainingMemory(10**8, 10**8, 2 * 10**8, 10**7, 26 * 10**8, 10**9)
    assert memory.text() == "3.0 GB for training (weights 0.1, gradients 0.1, optimizer 0.2, activations 2.6)"
    small = TrainingMemory(4 * 10**5, 10**6, 2 * 10**6, 10**6, 10**7, 10**6)
    assert small.text() == "14 MB for training (gradients 1, optimizer 2, batch 1, activations 10)"
    whole = replace(small, validation=2 * 10**7)
    assert whole.text() == "20 MB for training (whole-image validation 20, a step 14)"
    assert [size_text(size) for size in (10, 949_999_999, 95 * 10**7)] == ["1 MB", "950 MB", "0.9 GB"]


GPU_SHAPES = {
    "3D plain": ("plain", plan_of((96, 96, 96), 2, features=(32, 64, 128, 256))),
    "3D plain bf16": ("plain", plan_of((128, 128, 128), 2, features=(32, 64, 128, 256), precision="bf16-mixed")),
    "3D residual bf16": ("residual", plan_of((96, 96, 96), 2, features=(32, 64, 128), precision="bf16-mixed")),
    "2D plain bf16": ("plain", plan_of((512, 512), 12, features=(32, 64, 128, 256, 512), precision="bf16-mixed")),
    "2D attention": ("attention", plan_of((256, 256), 8, features=(32, 64, 128, 256))),
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", GPU_SHAPES)
def test_on_a_gpu_the_step_takes_what_was_predicted(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    kind, plan = GPU_SHAPES[name]
    network = network_of(plan, kind)
    predicted = predict_training_memory(network, loss_of(), plan, optimizer=ADAMW, device="cuda")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    step = Step(network, plan, ADAMW, device="cuda")
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    assert predicted.step == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.1)
