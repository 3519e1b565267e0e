"""The selective scan of Mamba: a linear recurrence along the tokens whose coefficients depend on them.

    dt_t  = softplus(delta_t + delta_bias)
    h_t   = exp(dt_t A) h_{t-1} + dt_t B_t u_t,   h_{-1} = 0,   (D, N) numbers a sample
    y_t   = <C_t, h_t> + D u_t
    out_t = y_t * silu(z_t)

The states h are never kept. Tokens are taken in chunks of at most `CHUNK`; many chunks run side by side, in two passes:
the first finds what each chunk adds to a state of zero, which gives the state at every border, since a chunk carries a
state on by exp(A * sum of its dt); the second runs the recurrence from the borders. The backward pass takes the states
at the borders, computes those between them again, and runs the adjoint recurrence from the last token to the first:

    g_t = C_t dL/dy_t + q_{t+1},   q_t = exp(dt_t A) g_t        (g = dL/dh_t, q = what flows on to h_{t-1})
    dL/d(dt_t A) = q_t h_{t-1},    dL/d(dt_t u_t B_t) = g_t

All of it in float32 (float64 for float64), whatever the type of u, under autocast too.

Memory: between the passes the inputs and the states at the borders are kept, (4 + N / CHUNK) B D L + 2 B N L numbers,
result included: linear in the number of tokens, half a number a channel and token for the states of N = 16. Within a
pass come a few buffers of about `ELEMENTS` numbers.

On CUDA the kernel of the package `mamba_ssm` is taken where it is installed: the same numbers up to rounding, faster.
It adds up gradients in no fixed order, so it is left alone where torch is told to be deterministic.

Reference:
    Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces (2023); Blelloch, Prefix Sums and Their
    Applications (1990), for the two passes.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Backend: TypeAlias = Literal["auto", "own"]

CHUNK = 32
"""Tokens of a chunk: steps that run one after another."""
ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""About how many numbers of states are worked on at once: what the caches of a processor hold, what fills a GPU."""

_KERNEL = "mamba_ssm.ops.selective_scan_interface"


def selective_scan(
    u: Float[Tensor, "B D L"],
    delta: Float[Tensor, "B D L"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N L"],
    C: Float[Tensor, "B N L"],
    D: Float[Tensor, "D"],
    z: Float[Tensor, "B D L"],
    delta_bias: Float[Tensor, "D"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "B D L"]:
    """The gated output of a selective state space, differentiable once in all eight arguments.

    Args:
        u: Input, L tokens of D channels.
        delta: Step of each token and channel before bias and softplus.
        A: Decay of each channel and state, negative.
        B: How a token enters the N states.
        C: How the states are read at a token.
        D: Weight of the input beside the states.
        z: The gate, before silu.
        delta_bias: Added to delta.
        backend: `auto` takes mamba_ssm's kernel on CUDA where there is one; `own` never.

    Returns:
        (B, D, L), of the type of u.
    """
    kernel = cuda_kernel(u.device.type) if backend == "auto" else None
    if kernel is not None:
        wide = torch.float32
        with torch.autocast(u.device.type, enabled=False):
            parts = (each.to(wide) for each in (u, delta, A, B, C))
            out: Tensor = kernel(
                *parts, D=D.to(wide), z=z.to(wide), delta_bias=delta_bias.to(wide), delta_softplus=True
            )
        return out.to(u.dtype)
    out, _ = _scan(u, delta, A, B, C, D, z, delta_bias)
    return out


def cuda_kernel(device: str) -> Callable[..., Any] | None:
    """mamba_ssm's `selective_scan_fn`; None on other devices, where it is not installed, or must be deterministic.

    Nothing of mamba_ssm is looked for, let alone imported, on another device than CUDA.
    """
    if device != "cuda" or torch.are_deterministic_algorithms_enabled():
        return None
    if importlib.util.find_spec(_KERNEL.partition(".")[0]) is None:
        return None
    kernel: Callable[..., Any] = importlib.import_module(_KERNEL).selective_scan_fn
    return kernel


class _Chunks:
    """How L tokens are cut: `count` chunks of `length` steps, `side_by_side` of them at once, the last one padded."""

    def __init__(self, tokens: int, *, numbers_a_token: int, device: str) -> None:
        self.tokens = tokens
        self.count = -(-tokens // CHUNK)
        # Equal lengths, so that 33 tokens are two chunks of 17 and not one of 32 and one of a single token.
        self.length = -(-tokens // self.count)
        at_once = ELEMENTS.get(device, ELEMENTS["cpu"]) // (self.length * numbers_a_token)
        self.side_by_side = max(1, min(self.count, at_once))

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Chunks and their tokens, one block after another."""
        for first in range(0, self.count, self.side_by_side):
            last = min(first + self.side_by_side, self.count)
            yield slice(first, last), slice(first * self.length, min(last * self.length, self.tokens))

    def cut(self, sequence: Tensor, tokens: slice, *, fill: float = 0.0) -> Tensor:
        """Some tokens of (B, X, L) as (length, chunks, B, X): step by step, all chunks of the block at once."""
        part = sequence[:, :, tokens]
        missing = -part.shape[2] % self.length
        if missing:
            part = F.pad(part, (0, missing), value=fill)
        batch, width, total = part.shape
        steps = part.reshape(batch, width, total // self.length, self.length).permute(3, 2, 0, 1)
        return steps.to(_precision(sequence)).contiguous()

    def put(self, target: Tensor, tokens: slice, values: Tensor) -> None:
        """The inverse: write (length, chunks, B, X) to some tokens of (B, X, L)."""
        length, chunks, batch, width = values.shape
        rows = values.permute(2, 3, 1, 0).reshape(batch, width, chunks * length)
        target[:, :, tokens] = rows[:, :, : tokens.stop - tokens.start]


def _precision(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _chunks_of(u: Tensor, A: Tensor) -> _Chunks:
    return _Chunks(u.shape[2], numbers_a_token=u.shape[0] * A.numel(), device=u.device.type)


class _Block:
    """What both passes need of one block of tokens: steps first, then chunks, samples, states, channels."""

    def __init__(
        self,
        chunks: _Chunks,
        tokens: slice,
        *,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        delta_bias: Tensor,
    ) -> None:
        self.decay = A.to(_precision(u)).t().contiguous()  # (N, D): the longer axis last
        self.u, self.B, self.C = (chunks.cut(each, tokens) for each in (u, B, C))
        # A padded token has a step of zero: it hands the state on as it is.
        self.raw = chunks.cut(delta, tokens, fill=-torch.inf) + delta_bias.to(_precision(u))
        self.step = F.softplus(self.raw)
        self.a = torch.exp_(self.step.unsqueeze(-2) * self.decay)
        self.whole = torch.exp_(self.step.sum(0).unsqueeze(-2) * self.decay)
        """How a chunk carries a state through all its tokens, (chunks, B, N, D)."""

    def states(self, before: Tensor, *, at_borders: bool) -> Tensor:
        """The state before the block's first token and after each of its tokens, (length + 1, chunks, B, N, D).

        Args:
            before: State before the block, (B, N, D), or before each of its chunks, (chunks, B, N, D).
            at_borders: Whether it is the latter.
        """
        length, chunks = self.a.shape[:2]
        h = self.a.new_empty(length + 1, *self.a.shape[1:])
        torch.mul((self.step * self.u).unsqueeze(-2), self.B.unsqueeze(-1), out=h[1:])
        if at_borders:
            h[0] = before
        else:
            h[0, 0] = before
            if chunks > 1:
                added = h[1].clone()
                for t in range(1, length):
                    torch.addcmul(h[t + 1], self.a[t], added, out=added)
                for k in range(chunks - 1):
                    torch.addcmul(added[k], self.whole[k], h[0, k], out=h[0, k + 1])
        for t in range(length):
            h[t + 1].addcmul_(self.a[t], h[t])
        return h

    def adjoint(self, g: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint recurrence: (g, q) of all tokens; g is changed in place, q takes the place of `a`.

        Args:
            g: C_t dL/dy_t, (length, chunks, B, N, D).
            after: q of the token behind the block, (B, N, D).
        """
        length, chunks = self.a.shape[:2]
        incoming = torch.empty_like(self.whole)
        incoming[-1] = after
        if chunks > 1:
            carried = g[-1] * self.a[-1]
            for t in range(length - 2, -1, -1):
                carried.add_(g[t]).mul_(self.a[t])
            for k in range(chunks - 1, 0, -1):
                torch.addcmul(carried[k], self.whole[k], incoming[k], out=incoming[k - 1])
        q = incoming
        for t in range(length - 1, -1, -1):
            g[t].add_(q)
            q = self.a[t].mul_(g[t])
        return g, self.a


def _over_states(row: Tensor, matrix: Tensor) -> Tensor:
    """sum_n row_n matrix_nd: (..., N), (..., N, D) to (..., D)."""
    out = torch.bmm(row.reshape(-1, 1, row.shape[-1]), matrix.reshape(-1, *matrix.shape[-2:]))
    return out.view(*row.shape[:-1], matrix.shape[-1])


def _over_channels(matrix: Tensor, column: Tensor) -> Tensor:
    """sum_d matrix_nd column_d: (..., N, D), (..., D) to (..., N)."""
    out = torch.bmm(matrix.reshape(-1, *matrix.shape[-2:]), column.reshape(-1, column.shape[-1], 1))
    return out.view(*column.shape[:-1], matrix.shape[-2])


# Operators of torch's own kind, so that a compiler and a trace without memory see one step each and not the loop.
@torch.library.custom_op("segkit::selective_scan", mutates_args=())
def _scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The output, (B, D, L), and the state before each chunk, (chunks, B, N, D)."""
    out, borders = _empty_results(u, A)
    chunks = _chunks_of(u, A)
    state = torch.zeros_like(borders[0])
    with torch.autocast(u.device.type, enabled=False):
        for here, tokens in chunks.blocks():
            block = _Block(chunks, tokens, u=u, delta=delta, A=A, B=B, C=C, delta_bias=delta_bias)
            h = block.states(state, at_borders=False)
            y = torch.addcmul(_over_states(block.C, h[1:]), block.u, D.to(block.u.dtype))
            chunks.put(out, tokens, y * F.silu(chunks.cut(z, tokens)))
            borders[here] = h[0]
            state = h[-1, -1].clone()
    return out, borders


@_scan.register_fake
def _(u: Tensor, _delta: Tensor, A: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_results(u, A)


def _empty_results(u: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, tokens = u.shape
    # Tokens before channels in memory, as the layers round the scan have them.
    out = u.new_empty(batch, tokens, channels).transpose(1, 2)
    return out, u.new_empty(-(-tokens // CHUNK), batch, A.shape[1], channels, dtype=_precision(u))


@torch.library.custom_op("segkit::selective_scan_backward", mutates_args=())
def _scan_backward(
    gradient: Tensor,
    borders: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of u, delta, A, B, C, D, z and delta_bias."""
    to_u, to_delta, to_A, to_B, to_C, to_D, to_z, to_bias = _empty_gradients(u, delta, A, B, C, D, z, delta_bias)
    sums = [torch.zeros_like(each, dtype=borders.dtype) for each in (A.t(), D, delta_bias)]
    chunks = _chunks_of(u, A)
    q_behind = torch.zeros_like(borders[0])
    with torch.autocast(u.device.type, enabled=False):
        for here, tokens in reversed(list(chunks.blocks())):
            block = _Block(chunks, tokens, u=u, delta=delta, A=A, B=B, C=C, delta_bias=delta_bias)
            h = block.states(borders[here], at_borders=True)
            skip, gate, of_out = D.to(borders.dtype), chunks.cut(z, tokens), chunks.cut(gradient, tokens)

            y = torch.addcmul(_over_states(block.C, h[1:]), block.u, skip)
            open_ = torch.sigmoid(gate)
            chunks.put(to_z, tokens, of_out * y * open_ * (1 + gate * (1 - open_)))
            of_y = of_out * gate * open_
            chunks.put(to_C, tokens, _over_channels(h[1:], of_y))

            g, q = block.adjoint(block.C.unsqueeze(-1) * of_y.unsqueeze(-2), q_behind)
            q_behind = q[0, 0].clone()
            chunks.put(to_B, tokens, _over_channels(g, block.step * block.u))
            of_entry = _over_states(block.B, g)  # dL/d(dt u), (length, chunks, B, D)
            chunks.put(to_u, tokens, torch.addcmul(of_y * skip, block.step, of_entry))

            of_exponent = q.mul_(h[:-1])
            of_step = torch.mul(of_exponent, block.decay, out=g).sum(-2).addcmul_(block.u, of_entry)
            of_raw = of_step * torch.sigmoid(block.raw)
            chunks.put(to_delta, tokens, of_raw)

            sums[0] += torch.mul(of_exponent, block.step.unsqueeze(-2), out=g).sum((0, 1, 2))
            sums[1] += (of_y * block.u).sum((0, 1, 2))
            sums[2] += of_raw.sum((0, 1, 2))
    to_A.copy_(sums[0].t())
    to_D.copy_(sums[1])
    to_bias.copy_(sums[2])
    return to_u, to_delta, to_A, to_B, to_C, to_D, to_z, to_bias


@_scan_backward.register_fake
def _(_gradient: Tensor, _borders: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return _empty_gradients(*inputs)


def _empty_gradients(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def empty(tensor: Tensor) -> Tensor:
        """Of the same shape; sequences with tokens before channels in memory."""
        if tensor.ndim == 3:
            return tensor.new_empty(tensor.shape[0], tensor.shape[2], tensor.shape[1]).transpose(1, 2)
        return tensor.new_empty(tensor.shape)

    return empty(u), empty(delta), empty(A), empty(B), empty(C), empty(D), empty(z), empty(delta_bias)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401  torch's
    ctx.save_for_backward(output[1], *inputs)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, ...]:  # noqa: ANN401  torch's
    out: tuple[Tensor, ...] = _scan_backward(gradient, *ctx.saved_tensors)
    return out


_scan.register_autograd(_differentiate, setup_context=_keep)
