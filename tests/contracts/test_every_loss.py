"""The contract of losses, for every file in configs/loss: a new loss is tested by being there."""

import copy
import inspect
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segkit.configuration import compose
from segkit.configuration.instantiate import instantiate, locate
from segkit.losses.deep_supervision import OPTIONAL_FIELDS, DeepSupervision
from segkit.losses.loss import Loss
from segkit.ops.instances import components_by_class, voronoi_cells
from segkit.types import Target

FOLDER = Path(__file__).parents[2] / "configs" / "loss"
CONFIGS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
TO_FILL = {"custom", "sum"}
NAMES = [name for name in CONFIGS if name not in TO_FILL]
SIZES = [(9, 7), (5, 6, 4)]
K = 3


def build(config):
    """As the configuration builds it: the plan supplies what the constructor names and the file leaves null."""
    return instantiate(config, where="loss", supplied={"num_classes": K, "dimensions": 2, "batch_dice": False})


@pytest.fixture(params=NAMES)
def loss(request):
    return build(CONFIGS[request.param])


def make_target(label, loss):
    """A target with what the loss needs and nothing else: fields it does not name stay None."""
    samples = [components_by_class(sample) for sample in label[:, 0].numpy()]
    cells = [voronoi_cells(ids, (1.0,) * ids.ndim) for ids in samples]
    everything = {
        "instances": torch.from_numpy(np.stack(samples))[:, None],
        "cells": torch.from_numpy(np.stack(cells))[:, None],
        "weight": torch.ones(label.shape),
        "labels_present": torch.ones(label.shape[0], K, dtype=torch.bool),
    }
    return Target(
        label=label,
        spacing=(1.0,) * (label.ndim - 2),
        num_instances=max(int(ids.max()) for ids in samples),
        **{name: everything[name] for name in loss.needs},
    )


def random_label(size, batch=2, seed=0):
    return torch.randint(0, K, (batch, 1, *size), generator=torch.Generator().manual_seed(seed))


def random_logits(size, batch=2, seed=1, dtype=torch.float32):
    return torch.randn(batch, K, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logits_of(label, scale):
    """Logits that predict the label with a margin; the inverse of it for a negative scale."""
    hot = torch.stack([(label[:, 0] == k).float() for k in range(K)], 1)
    return scale * (2 * hot - 1)


def targets(size):
    """The hard ones, by name."""
    one_voxel = torch.zeros(2, 1, *size, dtype=torch.int64)
    one_voxel[(0, 0, *(0 for _ in size))] = 1
    mixed = random_label(size)
    mixed[1] = -1
    return {
        "random": random_label(size),
        "empty": torch.zeros(2, 1, *size, dtype=torch.int64),
        "full": torch.ones(2, 1, *size, dtype=torch.int64),
        "one voxel": one_voxel,
        "all ignored": torch.full((2, 1, *size), -1),
        "one sample ignored": mixed,
    }


def test_the_signature_is_the_schema():
    for name in NAMES:
        config = CONFIGS[name]
        keys = set(config) - {"_target_"}
        assert keys == set(inspect.signature(locate(config["_target_"], where="loss", trust=False)).parameters), name


def test_no_loss_of_a_file_is_refused_alone(loss):
    assert loss.usable_alone


def test_a_custom_loss_is_built_from_its_path_and_args():
    built = build({**CONFIGS["custom"], "_target_": "segkit.losses.dice.DiceLoss", "args": {"smooth": 1.0}})
    assert built.smooth == 1.0


def test_what_is_null_in_the_file_comes_from_the_plan():
    for batch_dice in (True, False):
        built = instantiate(CONFIGS["dice_ce"], where="loss", supplied={"batch_dice": batch_dice})
        assert built.terms["dice"].batch_dice is batch_dice


def test_needs_name_optional_fields(loss):
    assert isinstance(loss.needs, frozenset)
    assert loss.needs <= OPTIONAL_FIELDS


@pytest.mark.parametrize("size", SIZES)
def test_perfect_beats_random_beats_inverted(loss, size):
    label = random_label(size)
    target = make_target(label, loss)
    perfect, inverted = (loss(logits_of(label, scale), target) for scale in (20.0, -20.0))
    guess = loss(random_logits(size), target)
    assert perfect < 1e-3
    assert perfect < guess < inverted


@pytest.mark.parametrize("size", SIZES)
def test_the_truth_beats_everything_and_nothing(loss, size):
    if not loss.usable_alone:
        pytest.skip("the loss says that it is none to use alone")
    label = (random_label(size) == 1).long()
    target = make_target(label, loss)
    truth = loss(logits_of(label, 20.0), target)
    for constant in range(K):
        assert truth < loss(logits_of(torch.full_like(label, constant), 20.0), target)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", list(targets((2, 2))))
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_value_and_gradient_are_finite_in_half_precision(loss, size, case, scale):
    for dtype in (torch.float16, torch.bfloat16):
        logits = (scale * random_logits(size).sign()).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=dtype):
            value = loss(logits, make_target(targets(size)[case], loss))
        assert value.shape == ()
        assert value.dtype == torch.float32
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("size", SIZES)
def test_a_guess_has_a_gradient_for_every_class(loss, size):
    logits = random_logits(size).requires_grad_()
    loss(logits, make_target(random_label(size), loss)).backward()
    assert (logits.grad.flatten(2).abs().amax(2) > 0).all()


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 2)])
def test_gradient_equals_differences(loss, size):
    """In 2D number by number, in 3D along random directions, which takes a tenth of the time."""
    label = random_label(size)
    label[0, 0, 0] = -1
    logits = random_logits(size, dtype=torch.float64).requires_grad_()
    target = make_target(label, loss)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits, fast_mode=len(size) == 3)


@pytest.mark.parametrize("size", SIZES)
def test_ignored_voxels_do_not_matter(loss, size):
    label = random_label(size)
    label[:, :, 0] = -1
    target = make_target(label, loss)
    logits = random_logits(size)
    other = logits.clone()
    other[:, :, 0] = 7.0
    torch.testing.assert_close(loss(logits, target), loss(other, target))


def test_the_order_of_the_batch_does_not_matter(loss):
    order = [2, 0, 1]
    logits, label = random_logits((6, 5), batch=3), random_label((6, 5), batch=3)
    torch.testing.assert_close(
        loss(logits, make_target(label, loss)), loss(logits[order], make_target(label[order], loss))
    )


def test_inputs_stay_as_they_were(loss):
    logits, label = random_logits((6, 5)), random_label((6, 5))
    label[0, 0, 0] = -1
    target = make_target(label, loss)
    before = copy.deepcopy((logits, target))
    loss(logits.requires_grad_(), target).backward()
    torch.testing.assert_close(logits.detach(), before[0], rtol=0, atol=0)
    for name in ("label", *loss.needs):
        assert torch.equal(getattr(target, name), getattr(before[1], name))


def test_narrow_label_types_give_the_same(loss):
    logits, label = random_logits((6, 5)), random_label((6, 5))
    expected = loss(logits, make_target(label, loss))
    for dtype in (torch.int8, torch.int16, torch.int32):
        assert loss(logits, make_target(label.to(dtype), loss)) == expected


def test_under_deep_supervision(loss):
    label = random_label((8, 12))
    levels = [random_logits((8 // s, 12 // s)).requires_grad_() for s in (1, 2, 4)]
    supervised = DeepSupervision(loss)
    assert supervised.needs == loss.needs
    value = supervised(levels, make_target(label, loss))
    assert value.shape == ()
    value.backward()
    assert all(level.grad.count_nonzero() > 0 for level in levels)


class Waits(TorchDispatchMode):
    """Records the operations for which the host would wait for an accelerator."""

    names = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__.startswith(self.names):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


def test_the_host_waits_for_nothing(loss):
    if loss.waits:
        pytest.skip("the loss says that it waits")
    label = random_label((8, 12))
    label[0, 0, 0] = -1
    target = make_target(label, loss)
    levels = [random_logits((8 // s, 12 // s)).requires_grad_() for s in (1, 2, 4)]
    with Waits() as waits:
        DeepSupervision(loss)(levels, target).backward()
    assert waits.found == []
    with Waits() as waits:
        bool(label.any())
    assert waits.found, "a wait goes unnoticed"


def test_survives_pickling_and_the_checkpoint(loss):
    logits, target = random_logits((6, 5)), make_target(random_label((6, 5)), loss)
    expected = loss(logits, target)
    loss.load_state_dict(loss.state_dict())
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin(logits, target) == expected
        assert twin.needs == loss.needs


def test_is_a_loss_of_ours(loss):
    assert isinstance(loss, Loss)
    assert isinstance(loss, nn.Module)


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    """{name: (gradient of one process for the whole batch, mean over two ranks of the gradient for half of it)}.

    All losses in one pair of processes, with Dice over samples and over the batch, with every voxel annotated and with
    fewer of the second rank's than of the first's. The last sample has no foreground.
    """
    folder, label = tmp_path_factory.mktemp("ranks"), random_label((6, 5, 4), batch=4)
    label[3] = 0
    sparse = label.clone()
    sparse[2:, :, 2:] = -1
    cases, whole = {}, {}
    for name, batch_dice, annotated in itertools.product(NAMES, (False, True), ("all", "fewer on a rank")):
        made = instantiate(
            CONFIGS[name], where="loss", supplied={"num_classes": K, "dimensions": 3, "batch_dice": batch_dice}
        )
        logits = random_logits((6, 5, 4), batch=4).requires_grad_()
        target = make_target(label if annotated == "all" else sparse, made)
        cases[name, batch_dice, annotated] = (made, logits.detach(), target)
        made(logits, target).backward()
        whole[name, batch_dice, annotated] = logits.grad
    torch.save(cases, folder / "cases.pt")
    command = [sys.executable, str(Path(__file__).with_name("loss_on_a_rank.py"))]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in (0, 1)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    halves = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    return {key: (whole[key], torch.cat([half[key] for half in halves]) / 2) for key in cases}


@pytest.mark.parametrize("annotated", ["all", "fewer on a rank"])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_learn_what_one_process_does(on_two_ranks, name, batch_dice, annotated):
    alone, averaged = on_two_ranks[name, batch_dice, annotated]
    torch.testing.assert_close(averaged, alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.slow
def test_compiled_losses_have_the_same_gradient(tmp_path):
    cases, expected = {}, {}
    for name in NAMES:
        loss, logits = build(CONFIGS[name]), random_logits((6, 5, 4)).requires_grad_()
        if not loss.waits:
            cases[name] = (loss, logits.detach(), make_target(random_label((6, 5, 4)), loss))
            loss(logits, cases[name][2]).backward()
            expected[name] = logits.grad
    torch.save(cases, tmp_path / "cases.pt")
    script = Path(__file__).with_name("compiled_losses.py")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=1200)
    torch.testing.assert_close(torch.load(tmp_path / "compiled.pt"), expected)


def test_one_sum_takes_all_of_them_by_the_names_of_their_files():
    """Through the real command line: what is tested here is what it builds."""
    words = ["loss=sum", *(f"loss@loss.terms.my_{name}={name}" for name in NAMES)]
    config = compose("train", [*words, *(f"loss.weights.my_{name}=0.5" for name in NAMES)])["loss"]
    assert config["terms"] == {f"my_{name}": CONFIGS[name] for name in NAMES}
    made, terms = build(config), [build(CONFIGS[name]) for name in NAMES]
    logits, target = random_logits((6, 5)), make_target(random_label((6, 5)), made)
    torch.testing.assert_close(made(logits, target), 0.5 * sum(term(logits, target) for term in terms))
