"""Soft counts: the few sums by sample and class that overlap losses and cross-entropy are functions of.

    intersection = sum of p y,   predicted = sum of p,   present = sum of y,   surprise = sum of l

Sums run over voxels, those with label -1 left out; p is the softmax (or sigmoid) of the logits, y the one-hot label.
For softmax l_k = -y_k log p_k, the negative log-likelihood by true class; for sigmoid it is the binary cross-entropy of
class k against the rest.

A loss that needs nothing else is a formula over (B, K) numbers, and several of them in a weighted sum share one pass
over the voxels. The derivative is written out, so that nothing as large as the logits is kept or computed twice over:
with a, b, c those of intersection, predicted and surprise, softmax gives

    g = y (a p - c) + b p,     dlogits = g - p (sum of g over classes)

Probabilities are computed anew in the backward pass: at the end of the forward pass every activation of the network is
alive, and writing and reading such a map costs more than the exponentials once it leaves the cache.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from segkit.losses.loss import Loss, full_precision
from segkit.ops.in_parallel import in_parallel
from segkit.ops.one_hot import one_hot
from segkit.types import LabelBatch, Logits, Target

Activation = Literal["softmax", "sigmoid"]
Result = TypeVar("Result")

PIECE = 2**18
"""Logits that a thread of the CPU works on at a time: a few maps of them stay in its cache."""


class SoftCounts(NamedTuple):
    """Sums over the annotated voxels of each sample, by class; float32 (float64 for float64 logits).

    Args:
        intersection: Sum of p y.
        predicted: Sum of p.
        present: Sum of y; without a gradient.
        surprise: Sum of the negative log-likelihood.
    """

    intersection: Float[Tensor, "B K"]
    predicted: Float[Tensor, "B K"]
    present: Float[Tensor, "B K"]
    surprise: Float[Tensor, "B K"]


def soft_counts(logits: Logits, label: LabelBatch, *, activation: Activation = "softmax") -> SoftCounts:
    """Soft counts of a batch, differentiable once by the logits.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        RuntimeError: A label is none of the K classes; on CUDA when the device next reports.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return SoftCounts(*_SoftCounts.apply(logits, label, activation))  # type: ignore[no-untyped-call]


class CountsLoss(Loss):
    """Base of the losses that are functions of soft counts; weighted sums compute these once for all of them.

    Attributes:
        activation: What turns logits into the probabilities that are counted.
    """

    activation: Activation

    @property
    def shares_counts(self) -> bool:
        """Whether soft counts are all it reads; one with a forward of its own may do more than count."""
        return type(self).forward is CountsLoss.forward

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """The loss of a batch with these counts."""
        raise NotImplementedError

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar to minimise."""
        return self.of_counts(soft_counts(logits, target.label, activation=self.activation))


class _SoftCounts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, label: Tensor, activation: Activation
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        counts = torch.zeros((4, *logits.shape[:2]), dtype=dtype, device=logits.device)
        annotated = torch.zeros(len(logits), dtype=dtype, device=logits.device)

        def count(samples: slice, planes: slice) -> tuple[Tensor, Tensor]:
            return _count(logits[samples, :, planes], label[samples, :, planes], activation)

        for (samples, _), (sums, known) in _over_pieces(count, logits):
            counts[:, samples] += sums
            annotated[samples] += known
        intersection, predicted, present, surprise = counts.unbind()
        if logits.device.type in ("cpu", "cuda"):  # the devices that have it; the host does not wait for the answer
            complete = (present.sum(1) == annotated).all()
            torch._assert_async(complete, f"a label is none of the {logits.shape[1]} classes of the logits")
        ctx.save_for_backward(logits, label)
        ctx.mark_non_differentiable(present)
        ctx.activation = activation  # type: ignore[attr-defined]
        return intersection, predicted, present, surprise

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401  torch fills it at will
        logits, label = ctx.saved_tensors
        intersection, predicted, _, surprise = (g.view(*g.shape, *[1] * (logits.ndim - 2)) for g in gradients)
        result = torch.empty_like(logits)

        def derive(samples: slice, planes: slice) -> None:
            upstream = (intersection[samples], predicted[samples], surprise[samples])
            piece = _gradient(logits[samples, :, planes], label[samples, :, planes], upstream, ctx.activation)
            _write(piece, into=result[samples, :, planes])

        _over_pieces(derive, logits)
        return result, None, None


def _count(logits: Tensor, label: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """The four sums of a piece (4, B, K), and its annotated voxels (B,)."""
    axes = tuple(range(2, logits.ndim))
    x = _by_class(logits)
    truth, known = _truth(label, x)
    if activation == "softmax":
        log_p = x.log_softmax(1)
        scratch = log_p * truth
        surprise = -scratch.sum(axes)
        p = log_p.exp_()
    else:
        scratch = F.binary_cross_entropy_with_logits(x, truth, reduction="none").mul_(known)
        surprise = scratch.sum(axes)
        p = x.sigmoid()
    predicted = p.mul_(known).sum(axes)
    intersection = torch.mul(p, truth, out=scratch).sum(axes)
    return torch.stack([intersection, predicted, truth.sum(axes), surprise]), known.sum((1, *axes))


def _gradient(logits: Tensor, label: Tensor, upstream: tuple[Tensor, Tensor, Tensor], activation: Activation) -> Tensor:
    """The derivative of a piece; `upstream` are a, b and c of the module's formula."""
    a, b, c = upstream
    x = _by_class(logits)
    truth, known = _truth(label, x)
    p = x.softmax(1) if activation == "softmax" else x.sigmoid()
    g = (known * b).addcmul_(truth, a).mul_(p)
    if activation == "softmax":
        g.addcmul_(truth, c, value=-1)
        return g.addcmul_(p, _sum_of_classes(g), value=-1)
    g.addcmul_(g, p, value=-1)
    return g.addcmul_(p.mul_(known).sub_(truth), c)


def _over_pieces(
    function: Callable[[slice, slice], Result], logits: Tensor
) -> list[tuple[tuple[slice, slice], Result]]:
    """A function of (samples, planes along the first spatial axis) over the parts of a batch, each with its result.

    On the CPU a part is some samples, or some planes of one sample, of a size that follows from the shape alone. An
    accelerator, and a compiler that fuses operations by itself, get all at once.
    """
    if logits.device.type != "cpu" or torch.compiler.is_compiling():
        everything = (slice(None), slice(None))
        return [(everything, function(*everything))]
    pieces = list(_pieces(logits))
    return list(zip(pieces, in_parallel(lambda piece: function(*piece), pieces), strict=True))


def _pieces(logits: Tensor) -> Iterator[tuple[slice, slice]]:
    batch, planes = logits.shape[0], logits.shape[2]
    at_once = max(1, PIECE // max(1, logits[0, :, 0].numel()))
    if at_once >= planes:
        samples = max(1, at_once // max(1, planes))
        yield from ((slice(i, i + samples), slice(None)) for i in range(0, batch, samples))
    else:
        yield from ((slice(i, i + 1), slice(j, j + at_once)) for i in range(batch) for j in range(0, planes, at_once))


def _by_class(logits: Tensor) -> Tensor:
    """In full precision; on the CPU with the classes one after the other in memory.

    Sums and softmax over a last axis of few classes do not vectorise, and `Tensor.contiguous` is four times slower
    here than taking the classes apart.
    """
    if _channels_last(logits):
        logits = torch.stack(logits.unbind(1), 1)
    return full_precision(logits)


def _truth(label: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot label (B, K, *S), and 1 where a voxel is annotated, else 0 (B, 1, *S)."""
    index = label.to(like.dtype, copy=True)
    return one_hot(index, like.shape[1], dtype=like.dtype), index.ge_(0)


def _sum_of_classes(value: Tensor) -> Tensor:
    """Sum over axis 1, which stays; maps added up on the CPU, where few and long rows are summed slowly."""
    if value.device.type != "cpu" or value.shape[1] == 1:
        return value.sum(1, keepdim=True)
    first, second, *others = value.unbind(1)
    total: Tensor = first + second
    for other in others:
        total += other
    return total.unsqueeze(1)


def _write(value: Tensor, *, into: Tensor) -> None:
    """Copy, with the conversion to the type of `into` before that to its order in memory: both then vectorise."""
    if _channels_last(into):
        for destination, source in zip(into.unbind(1), value.to(into.dtype).unbind(1), strict=True):
            destination.copy_(source)
    else:
        into.copy_(value)


def _channels_last(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.shape[1] > 1 and logits.stride(1) == 1
