"""The selective scan of Mamba, forward and backward."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.bench import Bench, synchronise
from benchmarks.harness import Contender, Pair, Row, timed

CHANNELS, STATES, TOKENS, QUICK = 64, 16, 4096, 64


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """The same eight inputs for each; mamba_ssm's kernel beside them where it can run."""
    from segkit.ops.selective_scan import cuda_kernel, selective_scan

    found = {
        "segkit": _contender(bench, lambda *inputs: selective_scan(*inputs, backend="own")),
        "step by step": _contender(bench, step_by_step),
        "step by step, unbound": _contender(bench, partial(step_by_step, unbound=True)),
    }
    if cuda_kernel(bench.device) is not None:
        found["mamba_ssm"] = _contender(bench, selective_scan)
    return found


def _contender(bench: Bench, scan: Callable[..., torch.Tensor]) -> Contender:
    def build() -> Any:  # noqa: ANN401
        given = inputs(bench.pick(TOKENS, QUICK), bench.device)
        weight = torch.ones_like(given[0])

        def one() -> None:
            torch.autograd.grad(scan(*given), given, weight)
            synchronise(bench)

        return timed(one, unit="ms")

    return Contender(build, "float32")


def inputs(tokens: int, device: str) -> tuple[torch.Tensor, ...]:
    """u, delta, A, B, C, D, z, delta_bias of one sample."""
    random = torch.Generator().manual_seed(0)
    sizes = ((1, CHANNELS, tokens),) * 2 + ((CHANNELS, STATES),) + ((1, STATES, tokens),) * 2
    drawn = [torch.randn(size, generator=random) for size in (*sizes, (CHANNELS,), sizes[0], (CHANNELS,))]
    drawn[2], drawn[7] = -torch.exp(drawn[2]), drawn[7] - 3
    return tuple(each.to(device).requires_grad_() for each in drawn)


def step_by_step(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    z: torch.Tensor,
    delta_bias: torch.Tensor,
    *,
    unbound: bool = False,
) -> torch.Tensor:
    """The recurrence as it is written, a token at a time, differentiated by torch.

    Args:
        u: These eight as in `selective_scan`.
        delta: See u.
        A: See u.
        B: See u.
        C: See u.
        D: See u.
        z: See u.
        delta_bias: See u.
        unbound: Whether tokens are cut apart before the loop. Indexed within it, as the usual reference has it, each
            token's gradient is written into zeros of the size of all tokens: the backward is quadratic in them.
    """
    step = F.softplus(delta + delta_bias[:, None])
    decay, entry = torch.exp(step.unsqueeze(-1) * A[:, None]), (step * u).unsqueeze(-1) * B.mT.unsqueeze(1)
    read = C[:, None]
    tokens: Iterable[tuple[torch.Tensor, ...]]
    if unbound:
        tokens = zip(decay.unbind(2), entry.unbind(2), read.unbind(3), strict=True)
    else:
        tokens = ((decay[:, :, t], entry[:, :, t], read[..., t]) for t in range(u.shape[2]))
    h = torch.zeros_like(decay[:, :, 0])
    outputs = []
    for kept, entered, weight in tokens:
        h = kept * h + entered
        outputs.append((h * weight).sum(-1))
    return (torch.stack(outputs, 2) + D[:, None] * u) * F.silu(z)


ROW = Row(
    name="scan",
    title="Selective scan",
    what="Forward and backward of Mamba's recurrence over 4096 tokens of 64 channels with 16 states each, one thread, "
    "against the same recurrence written as a loop: indexed, as the usual reference is, and cut apart before it.",
    unit="ms",
    contenders=contenders,
    pairs=(Pair("step by step", "segkit"), Pair("step by step, unbound", "segkit")),
    rounds=3,
    threads=1,
)
