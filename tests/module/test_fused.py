"""The fused optimizers: the plain ones' arithmetic, and a step left out by a flag on the device."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkit.module.fused import fusible, honours_flag, prepare_momentum, prepared

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"lr": 1e-2}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 1e-2}),
    "sgd": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}),
    "sgd without momentum": (torch.optim.SGD, {"lr": 1e-2}),
}


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((37, 5), (1003,), (1,))]


def walk(optimizer: torch.optim.Optimizer, moved: list[nn.Parameter], steps: int, *, left_out: tuple[int, ...] = ()):
    """Gradients drawn by the step, of very different size; a step that is left out has NaN in its gradient."""
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for each in moved:
            each.grad = torch.randn(each.shape, generator=generator) * 10.0 ** (step % 5 - 2)
            if step in left_out:
                each.grad.view(-1)[0] = torch.nan
        optimizer.found_inf = torch.tensor(float(step in left_out)) if left_out else None
        optimizer.step()


@pytest.mark.parametrize("name", KINDS)
def test_twenty_steps_agree_with_the_plain_implementation(name: str) -> None:
    kind, arguments = KINDS[name]
    plain, fused = weights(), weights()
    walk(kind(plain, foreach=False, fused=False, **arguments), plain, 20)
    walk(prepared(kind(fused, fused=True, **arguments)), fused, 20)
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("left_out", [(0,), (0, 1), (3,), (3, 4, 7)])
@pytest.mark.parametrize("name", KINDS)
def test_a_step_left_out_by_the_flag_has_not_been(name: str, left_out: tuple[int, ...]) -> None:
    """The first one too, whose momentum torch would otherwise leave as it finds it in memory."""
    kind, arguments = KINDS[name]
    moved, other = weights(), weights()
    optimizer = prepared(kind(moved, fused=True, **arguments))
    walk(optimizer, moved, 8, left_out=left_out)
    without = kind(other, fused=True, **arguments)
    for step in (step for step in range(8) if step not in left_out):
        generator = torch.Generator().manual_seed(step)
        for each in other:
            each.grad = torch.randn(each.shape, generator=generator) * 10.0 ** (step % 5 - 2)
        without.step()
    for one, two in zip(moved, other, strict=True):
        assert torch.equal(one, two)
        states = optimizer.state[one], without.state[two]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(torch.as_tensor(states[0][key]), torch.as_tensor(states[1][key])) for key in states[0])


@pytest.mark.parametrize("name", KINDS)
def test_channels_last_weights_too_and_after_their_state_was_loaded(name: str) -> None:
    """The kernels see memory only: the state comes from a run of contiguous weights, the gradient from autograd."""
    kind, arguments = KINDS[name]
    image = torch.randn(2, 3, 6, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def network(memory_format: torch.memory_format) -> nn.Module:
        torch.manual_seed(0)
        made = nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 3))
        return made.double().to(memory_format=memory_format)

    def train(made: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            made(image).square().mean().backward()
            optimizer.step()

    plain, last = network(torch.contiguous_format), network(torch.channels_last_3d)
    reference = kind(plain.parameters(), foreach=False, fused=False, **arguments)
    optimizer = prepared(kind(last.parameters(), fused=True, **arguments))
    assert last[0].weight.stride() != plain[0].weight.stride()
    for _ in range(2):
        train(plain, reference)
        train(last, optimizer)
        for one, other in zip(plain.parameters(), last.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        groups = optimizer.state_dict()["param_groups"]
        state = copy.deepcopy(reference.state_dict()["state"])
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def test_a_parameter_may_get_its_first_gradient_later() -> None:
    def ends(**implementation: bool) -> list[Tensor]:
        moved = weights()
        optimizer = torch.optim.SGD(moved, lr=0.1, momentum=0.9, nesterov=True, **implementation)
        if implementation["fused"]:
            prepared(optimizer)
        for used in (moved[:1], moved):
            for each in used:
                each.grad = torch.ones_like(each)
            optimizer.step()
        return [each.detach() for each in moved]

    for one, other in zip(ends(fused=True), ends(fused=False, foreach=False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_momentum_that_is_there_stays_and_where_none_is_used_none_is_made() -> None:
    moved = weights()
    optimizer = torch.optim.SGD(moved, lr=0.1, momentum=0.9, fused=True)
    optimizer.state[moved[0]]["momentum_buffer"] = torch.full_like(moved[0], 3.0)
    prepare_momentum(optimizer)
    assert torch.equal(optimizer.state[moved[0]]["momentum_buffer"], torch.full_like(moved[0], 3.0))
    assert torch.equal(optimizer.state[moved[1]]["momentum_buffer"], torch.zeros_like(moved[1]))
    for other in (torch.optim.SGD(weights(), lr=0.1, fused=True), torch.optim.SGD(weights(), lr=0.1, momentum=0.9)):
        prepare_momentum(other)
        assert not other.state


@pytest.mark.parametrize(
    ("kind", "arguments", "precision", "expected"),
    [
        (torch.optim.AdamW, {}, "32-true", True),
        (torch.optim.SGD, {"momentum": 0.9, "fused": None}, "bf16-mixed", True),
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1}, "32-true", False),
        (torch.optim.AdamW, {}, "16-mixed", False),
        (torch.optim.AdamW, {"fused": False}, "32-true", False),
        (torch.optim.AdamW, {"foreach": True}, "32-true", False),
        (torch.optim.Adagrad, {}, "32-true", False),
        (torch.optim.RMSprop, {}, "32-true", False),
        (type("Own", (torch.optim.AdamW,), {}), {}, "32-true", False),
    ],
)
def test_what_is_fused(kind: Any, arguments: dict[str, Any], precision: str, expected: bool) -> None:
    assert fusible(kind, arguments, weights(), precision=precision) is expected
    assert not fusible(kind, arguments, [torch.zeros(1, device="meta")], precision=precision)
    assert not fusible(kind, arguments, [torch.zeros(1, dtype=torch.complex64)], precision=precision)


def test_a_run_that_began_plain_stays_plain_when_its_state_is_loaded() -> None:
    moved = weights()
    plain = torch.optim.AdamW(moved, lr=0.1)
    walk(plain, moved, 2)
    fused = prepared(torch.optim.AdamW(weights(), lr=0.1, fused=True))
    assert honours_flag(fused)
    fused.load_state_dict(plain.state_dict())
    assert not honours_flag(fused)
    assert not honours_flag(plain)
