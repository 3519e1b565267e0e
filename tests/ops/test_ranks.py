"""Collectives between real processes (gloo), and the identity where there is one."""

import faulthandler
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from segkit.losses.cross_entropy import cross_entropy_loss
from segkit.losses.dice import soft_dice_loss
from segkit.losses.focal import focal_loss
from segkit.ops import ranks

WITHIN_S = 100
"""A process that takes longer hangs."""


def on_ranks(function: Callable[[], object], *, size: int = 2) -> list[object]:
    """What `function` returns in each of `size` forked processes of one group.

    They meet over a file and use one thread each: a lock that a thread of this process holds at the fork, the server of
    another kind of store or a pool of OpenMP, would stay locked in them for ever. One that hangs says where.
    """
    folder = Path(tempfile.mkdtemp())
    children = []
    for number in range(size):
        pid = os.fork()
        if pid == 0:
            told = (folder / f"{number}.txt").open("w")
            faulthandler.dump_traceback_later(WITHIN_S, exit=True, file=told)
            try:
                os.environ["GLOO_SOCKET_IFNAME"] = "lo"
                torch.set_num_threads(1)
                meeting = dist.FileStore(str(folder / "store"), size)
                dist.init_process_group("gloo", store=meeting, rank=number, world_size=size)
                torch.save(function(), folder / str(number))
                os._exit(0)
            except BaseException as error:  # the parent reads what happened
                told.write(repr(error))
                told.flush()
                os._exit(1)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * size, [path.read_text() for path in folder.glob("*.txt")]
    return [torch.load(folder / str(number), weights_only=True) for number in range(size)]


def test_alone_every_function_is_the_identity():
    value = torch.tensor([1.0, 2.0])
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    assert ranks.any_rank(True) is True
    assert ranks.any_rank(False) is False
    assert ranks.any_rank_tensor(value) is value
    assert ranks.gather_objects("a") == ["a"]
    assert ranks.first_given(None) is None
    assert ranks.sum_over_ranks(value) is value
    assert ranks.share_of([1, 2, 3]) == [1, 2, 3]
    assert ranks.part_of_mean(torch.tensor(6.0), torch.tensor(4.0)) == 1.5
    assert ranks.part_of_mean(torch.tensor(0.0), torch.tensor(0.0)) == 0


def _talk() -> dict[str, object]:
    me = ranks.rank()
    items = list(range(5))
    return {
        "any": [ranks.any_rank(me == 1), ranks.any_rank(False)],
        "device": ranks.any_rank_tensor(torch.tensor(float(me))).item(),
        "gathered": ranks.gather_objects({"rank": me}),
        "first": ranks.first_given(None if me == 0 else "second"),
        "share": ranks.share_of(items),
        "total": ranks.total_over_ranks([torch.tensor([me, 1])])[0].tolist(),
    }


def test_two_ranks_agree():
    told = on_ranks(_talk)
    for number, each in enumerate(told):
        assert each["any"] == [True, False]
        assert each["device"] == 1.0
        assert each["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert each["first"] == "second"
        assert each["total"] == [1, 2]
        assert each["share"] == [[0, 2, 4], [1, 3]][number]


LOGITS = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
LABEL = torch.randint(0, 3, (4, 1, 5, 6), generator=torch.Generator().manual_seed(1))


def _half_of_a_batch() -> dict[str, torch.Tensor]:
    part = slice(2 * ranks.rank(), 2 * ranks.rank() + 2)
    logits = LOGITS[part].clone().requires_grad_()
    loss = soft_dice_loss(logits, LABEL[part], batch_dice=True)
    loss.backward()
    with torch.no_grad():
        alone = soft_dice_loss(LOGITS[part], LABEL[part], batch_dice=True)
    return {"loss": loss.detach(), "gradient": logits.grad, "alone": alone}


def test_batch_dice_of_two_ranks_is_that_of_the_whole_batch():
    logits = LOGITS.clone().requires_grad_()
    whole = soft_dice_loss(logits, LABEL, batch_dice=True)
    whole.backward()
    halves = on_ranks(_half_of_a_batch)
    # The ranks' gradients are averaged afterwards, so each must carry twice its part of the whole.
    gradient = torch.cat([half["gradient"] for half in halves]) / 2
    for half in halves:
        torch.testing.assert_close(half["loss"], whole.detach())
    torch.testing.assert_close(gradient, logits.grad)
    # Without gradients nothing is exchanged: in validation each rank has another number of images.
    assert halves[0]["alone"] != halves[1]["alone"]


MEANS = {
    "weighted": lambda x, y: cross_entropy_loss(x, y, class_weights=torch.tensor([0.1, 1.0, 4.0])),
    "sigmoid": lambda x, y: cross_entropy_loss(x, y, class_weights=torch.tensor([0.1, 1, 4]), activation="sigmoid"),
    "smoothed": lambda x, y: cross_entropy_loss(x, y, class_weights=torch.tensor([0.1, 1, 4]), label_smoothing=0.1),
    "focal": lambda x, y: focal_loss(x, y, alpha=0.25),
    "focal sigmoid": lambda x, y: focal_loss(x, y, activation="sigmoid"),
}
SPARSE = LABEL.clone()
SPARSE[2:, :, 1:] = -1
SPARSE[3] = -1
LABELS = {"all annotated": LABEL, "fewer on a rank": SPARSE, "none on a rank": SPARSE[[0, 1, 3, 3]]}


def _parts_of_means() -> dict[str, list[torch.Tensor]]:
    part, parts = slice(2 * ranks.rank(), 2 * ranks.rank() + 2), {}
    for (name, mean), (which, label) in itertools.product(MEANS.items(), LABELS.items()):
        logits = LOGITS[part].clone().requires_grad_()
        loss = mean(logits, label[part])
        loss.backward()
        with torch.no_grad():
            alone = mean(LOGITS[part], label[part])
        parts[f"{name}, {which}"] = [loss.detach(), logits.grad, alone]
    return parts


def test_means_over_the_voxels_of_two_ranks_are_those_of_the_whole_batch():
    """Also where the ranks' weights differ: by classes, by what is annotated, by nothing annotated on one of them."""
    first, second = on_ranks(_parts_of_means)
    for (name, mean), (which, label) in itertools.product(MEANS.items(), LABELS.items()):
        logits = LOGITS.clone().requires_grad_()
        whole = mean(logits, label)
        whole.backward()
        (one, of_one, alone), (other, of_other, _) = (half[f"{name}, {which}"] for half in (first, second))
        torch.testing.assert_close((one + other) / 2, whole.detach())
        torch.testing.assert_close(torch.cat([of_one, of_other]) / 2, logits.grad)
        # Without gradients nothing is exchanged: a mean of this rank's voxels alone.
        torch.testing.assert_close(alone, mean(LOGITS[:2], label[:2]))


def test_the_part_of_a_rank_is_not_finite_on_that_rank_alone():
    """By its own loss the rank is found that spoilt a step."""

    def poisoned() -> torch.Tensor:
        total = torch.tensor(float("nan") if ranks.rank() == 1 else 6.0, requires_grad=True)
        return ranks.part_of_mean(total, torch.tensor(2.0 + 2.0 * ranks.rank())).detach()

    sound, spoilt = on_ranks(poisoned)
    assert sound == 6.0 / 3.0
    assert spoilt.isnan()


def test_a_batch_that_cannot_be_shared_is_refused_with_the_key_that_mends_it():
    from segkit.data.sampling import samples_of_a_rank
    from segkit.errors import UsageError

    assert samples_of_a_rank(6, 3) == 2
    with pytest.raises(UsageError, match=r"plan.batch_size=4") as refused:
        samples_of_a_rank(3, 2)
    assert refused.value.exit_code == 2
