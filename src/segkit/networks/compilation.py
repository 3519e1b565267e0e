"""`torch.compile` for the training step: tried on an example, kept where it computes the same, else left out.

The compiled form is a handle beside the network. It reads the same parameters, so that the network itself, its names
in a checkpoint and its use on other image sizes stay as they are.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from segkit.errors import SegkitError

Forward: TypeAlias = Callable[[Tensor], Tensor | list[Tensor]]

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
TOLERANCE = {"bf16-mixed": (0.1, 0.1), "16-mixed": (0.02, 0.02), "32-true": (1e-3, 1e-2)}
"""Largest relative distance ||compiled - eager|| / ||eager|| of the logits, and of all gradients as one vector.

Fused kernels round fewer times, so the compiled form is no further from the exact numbers than the eager one; two
roundings of bfloat16 (2^-9 each) through twenty layers differ by a few per cent in the gradients. In float32 what
differs is the slope of the few activations that a rounding takes from one side of zero to the other: on images of 28 x
30 and 17 x 28 x 30 the gradients of seven networks were up to 1e-3 from those in double precision, nine of 14 within
2e-5."""

COMPILE_SECONDS = {"cpu": 100.0, "cuda": 100.0}
"""What compiling costs. cpu: U-Nets of 16.5 M and of 1.4 M parameters in 3D, forward and backward, took 87 to 185 s on
two busy cores, torch 2.13, nothing cached. cuda: an allowance of the same size, not measured."""
GAIN = {"cpu": 0.0, "cuda": 0.1}
"""Share of a step that is saved. cpu: none. Nine tenths of a step are convolutions, which compiling leaves as they are;
the same two networks, compiled, took 1.14 and 1.11 (channels first) or 1.14 and 1.51 (channels last) times the step
of `segkit.networks.instance_norm` with channels last. cuda: a cautious allowance, not measured."""


@dataclass(frozen=True)
class Compilation:
    """What came of compiling a network.

    Attributes:
        forward: The network's training pass, compiled or as it was; not a module, so it is not registered by one.
        compiled: Whether it is compiled.
        reason: Why, as text.
        seconds: What compiling and trying took.
    """

    forward: Forward
    compiled: bool
    reason: str
    seconds: float


def compile_pays(device: str, steps: int, step_s: float) -> tuple[bool, str]:
    """Whether what compiling saves over the steps that are left exceeds what it costs, and the sum as text.

        gain * step_s * steps > compile_s

    Args:
        device: "cpu", "cuda" or "mps".
        steps: Optimiser steps that are left.
        step_s: Seconds of one as it is, not compiled.
    """
    if device not in GAIN:
        return False, f"torch.compile has not been tried on {device}"
    if GAIN[device] <= 0:
        return False, f"on {device} a compiled network is no faster: its time is the convolutions', which stay"
    saved, cost = GAIN[device] * step_s * steps, COMPILE_SECONDS[device]
    text = f"{steps} steps of {step_s:.3g} s save about {saved:.0f} s where compiling takes about {cost:.0f} s"
    return saved > cost, text


def compile_network(
    network: nn.Module,
    example: Tensor,
    *,
    precision: str,
    is_out_of_memory: Callable[[BaseException], bool] | None = None,
) -> Compilation:
    """Compile a network for images like the example, and try it: one pass forward and backward beside the eager one.

    Nothing of the trial is left behind: gradients, buffers, the mode of training and the state of the random numbers
    are as before.

    Args:
        network: On its device, in its memory format. It is not changed.
        example: A batch of the shape, type and device of training, (B, C, *S).
        precision: What training computes in.
        is_out_of_memory: Whether an error is a lack of memory; by default torch's and Python's own classes are.

    Returns:
        The handle, or the network itself with the reason: no compiler, an error of it, other numbers.

    Raises:
        MemoryError: And whatever else the device says when memory is short: that is not the compiler's fault.
        SegkitError: A preemption while it compiled, for one; passed on.
    """
    start = time.monotonic()
    with _left_as_it_was(network):
        network.train()
        state = torch.get_rng_state()
        eager = _trial(network, example, precision)
        torch.set_rng_state(state)
        # A module of torch's around the network; called through a function it is in nobody's list of modules.
        handle = torch.compile(network, dynamic=False)
        try:
            fused = _trial(handle, example, precision)
        except Exception as error:
            lacks_memory = is_out_of_memory or _is_out_of_memory
            for each in _causes(error):
                # The compiler wraps what comes up while it works; the caller is to see the thing itself.
                if isinstance(each, SegkitError) or lacks_memory(each):
                    raise each from each.__cause__
            return Compilation(network, False, _failure(error), time.monotonic() - start)
    seconds = time.monotonic() - start
    distances = [_distance(a, b) for a, b in zip(fused, eager, strict=True)]
    # Written so that a distance that is no number is too far.
    limits = TOLERANCE[precision]
    if not all(distance <= limit for distance, limit in zip(distances, limits, strict=True)):
        (logits, gradients), (most, most_of_gradients) = distances, limits
        reason = (
            f"the compiled network computes something else: logits differ by {logits:.2g}, gradients by "
            f"{gradients:.2g} of their size, where {most:g} and {most_of_gradients:g} are rounding in {precision}"
        )
        return Compilation(network, False, reason, seconds)

    def forward(image: Tensor) -> Tensor | list[Tensor]:
        out: Tensor | list[Tensor] = handle(image)
        return out

    return Compilation(forward, True, f"compiled and tried in {seconds:.0f} s", seconds)


def _trial(forward: Forward, example: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Logits of all levels as one vector, and all gradients as one, of a loss that weights the voxels unequally."""
    parameters = _parameters(forward)
    for parameter in parameters:
        parameter.grad = None
    kind = example.device.type
    with torch.autocast(kind, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST):
        outputs = forward(example)
    levels = [outputs] if isinstance(outputs, Tensor) else outputs
    logits = torch.cat([level.float().flatten() for level in levels])
    # Incommensurable with the grid: no symmetry hides a shift. Of one sign: the voxels' parts of a gradient add up, so
    # that one of them whose activation was rounded to the other side of zero is a small part of it.
    weight = 1 + torch.sin(torch.arange(len(logits), device=logits.device, dtype=torch.float32) * 0.7391)
    ((logits * weight).sum() / len(logits)).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad.float().flatten() for parameter in parameters if parameter.grad is not None]
    return logits.detach(), torch.cat(gradients)


def _parameters(forward: Forward) -> list[nn.Parameter]:
    return list(forward.parameters()) if isinstance(forward, nn.Module) else []


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Put back what a pass forward and backward changes."""
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    modes = [(module, module.training) for module in network.modules()]
    cuda = sorted({p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            for module, training in modes:
                module.training = training


def _distance(found: Tensor, expected: Tensor) -> float:
    size = expected.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found - expected).norm() / size)


def _failure(error: BaseException) -> str:
    error = getattr(error, "inner_exception", None) or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"torch.compile failed: {type(error).__name__}: {lines[0][:200] if lines else 'no further words'}"


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; the compiler's errors name theirs in an attribute of their own."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        each = queue.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            queue += [each.__cause__, each.__context__, getattr(each, "inner_exception", None)]
