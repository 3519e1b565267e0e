"""Collectives between real processes (gloo), and the identity where there is one."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from segkit.losses.dice import soft_dice_loss
from segkit.ops import ranks


def on_ranks(function: Callable[[], object], *, size: int = 2) -> list[object]:
    """What `function` returns in each of `size` forked processes of one group; nothing threaded has run before."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    folder = Path(tempfile.mkdtemp())
    store = dist.TCPStore("127.0.0.1", port, None, True, wait_for_workers=False, master_listen_fd=_listening(listening))
    children = []
    for number in range(size):
        pid = os.fork()
        if pid == 0:
            try:
                os.environ["GLOO_SOCKET_IFNAME"] = "lo"
                client = dist.TCPStore("127.0.0.1", port, None, False)
                dist.init_process_group("gloo", store=client, rank=number, world_size=size)
                torch.save(function(), folder / str(number))
                os._exit(0)
            except BaseException as error:  # the parent reads what happened
                (folder / f"{number}.txt").write_text(repr(error))
                os._exit(1)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * size, [path.read_text() for path in folder.glob("*.txt")]
    del store
    return [torch.load(folder / str(number), weights_only=True) for number in range(size)]


def _listening(listener: socket.socket) -> int:
    listener.listen(16)
    return listener.detach()


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


def test_a_batch_that_cannot_be_shared_is_refused_with_the_key_that_mends_it():
    from segkit.data.sampling import samples_of_a_rank
    from segkit.errors import UsageError

    assert samples_of_a_rank(6, 3) == 2
    with pytest.raises(UsageError, match=r"plan.batch_size=4") as refused:
        samples_of_a_rank(3, 2)
    assert refused.value.exit_code == 2
