"""A network as a function from a whole image to its logits."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.inference.sliding_window import Passes, sliding_window, stream_planes
from segkit.inference.sums import SPILL_WINDOW
from segkit.types import Size

logger = logging.getLogger(__name__)

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
ImagePredictor = Callable[[Tensor], Tensor]
"""Logits (K, *S), float32 on the CPU, of an image (C, *S)."""


class Predictor:
    """Logits of whole images by sliding window; leaves the network in the mode it was found in.

    Args:
        network: Contract of `segkit.networks`.
        patch_size: Size of a tile.
        num_classes: K, background included.
        step: Largest distance of two tiles, as a share of the patch.
        tile_batch: Tiles a pass.
        device: Where the network is; that of its first parameter if not given.
        precision: What the network computes in; logits are blended in float32 whatever it is.
        mirror_axes: Spatial axes to flip and average over.
        before_pass: Called before each pass of the network; what it raises ends the prediction.

    Raises:
        UsageError: An unknown precision.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        patch_size: Size,
        num_classes: int,
        step: float = 0.5,
        tile_batch: int = 1,
        device: torch.device | str | None = None,
        precision: str = "32-true",
        mirror_axes: Sequence[int] = (),
        before_pass: Callable[[], None] | None = None,
    ) -> None:
        self.network = network
        self.patch_size = tuple(patch_size)
        self.num_classes = num_classes
        self.step = step
        self.tile_batch = tile_batch
        self.device = torch.device(device) if device is not None else _device_of(network)
        self.precision = precision
        self.mirror_axes = tuple(mirror_axes)
        self.before_pass = before_pass
        autocast(self.device, precision)

    def __call__(self, image: Float[Tensor, "C *S"]) -> Float[Tensor, "K *S"]:
        """Logits of one image, float32 on the CPU."""
        with evaluating(self.network), self._computing():
            return sliding_window(
                self.network,
                image,
                patch_size=self.patch_size,
                num_classes=self.num_classes,
                step=self.step,
                tile_batch=self.tile_batch,
                device=self.device,
                mirror_axes=self.mirror_axes,
                before_pass=self.before_pass,
                fewer=self._fewer,
            )

    def stream(
        self, image: Float[Tensor, "C *S"], *, scratch: Path | None = None, window: int = SPILL_WINDOW
    ) -> Iterator[Float[Tensor, "K N *R"]]:
        """The same logits in blocks of planes along the first axis; see `stream_planes`.

        Args:
            image: The prepared image.
            scratch: Folder of a file to sum in; None: in memory, on the device where that has room.
            window: Bytes of that file that may be in memory at once.
        """
        passes = Passes(
            self.network,
            num_classes=self.num_classes,
            tile_batch=self.tile_batch,
            device=self.device,
            mirror_axes=self.mirror_axes,
            before_pass=self.before_pass,
            fewer=self._fewer,
            context=self._computing,
        )
        with evaluating(self.network):
            yield from stream_planes(
                passes, image, patch_size=self.patch_size, step=self.step, scratch=scratch, window=window
            )

    def mirrored(self, axes: Sequence[int]) -> "Predictor":
        """The same network, averaging over the images flipped along these spatial axes."""
        other = copy.copy(self)
        other.mirror_axes = tuple(axes)
        return other

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield

    def _fewer(self, tiles: int) -> None:
        """The memory did not last for a pass: later images begin with as many tiles as it did last for."""
        logger.warning(
            "%s ran out of memory in a pass of %d tiles: %d from now on", self.device, self.tile_batch, tiles
        )
        self.tile_batch = tiles


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is back in its own mode, frozen ones too."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a network computes in `precision`.

    Raises:
        UsageError: An unknown precision.
    """
    if precision not in get_args(Precision):
        mend = f"use {', '.join(get_args(Precision))}"
        raise UsageError(f"no such precision: {precision}", where="trainer.precision", mend=mend)
    if precision == "32-true":
        # Also switches off an autocast that the caller may be under.
        return torch.autocast(device.type, enabled=False) if device.type in ("cpu", "cuda", "mps") else nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16-mixed" else torch.float16)


def _device_of(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
