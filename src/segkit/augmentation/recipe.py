"""The recipe: draws for every sample from its own key, applies to the batch where it lies."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import ChannelDraws, IntensityTransform
from segkit.augmentation.spatial import Spatial, SpatialDraw, place
from segkit.ops.keyed_random import generator
from segkit.types import Batch, Size

_STREAM = 1


@dataclass(frozen=True)
class SampleParameters:
    """All that was drawn for one sample.

    Args:
        spatial: What moves it.
        intensity: By transform, what was drawn for each channel; only what was drawn is in it.
    """

    spatial: SpatialDraw
    intensity: dict[str, ChannelDraws]


class Recipe:
    """Spatial and intensity augmentation of a batch.

    Parameters are drawn on the CPU from (seed, n): the same on every device, and for a sample the same in whatever
    batch it comes. They are applied on the batch's device, and only where they were drawn.

    Args:
        spatial: Mirror, rotation and scaling; None for none.
        intensity: Intensity transforms by name, applied in this order; None leaves one out.
    """

    def __init__(
        self, spatial: Spatial | None = None, intensity: Mapping[str, IntensityTransform | None] | None = None
    ) -> None:
        """Keep what there is to apply."""
        self.spatial = spatial
        self.intensity = {name: one for name, one in (intensity or {}).items() if one is not None}

    def source_size(self, patch_size: Size) -> Size:
        """The patch that the loader has to cut: larger than `patch_size` where rotation and scaling need it."""
        return tuple(patch_size) if self.spatial is None else self.spatial.source_size(tuple(patch_size))

    def draw(
        self, rng: np.random.Generator, patch_size: Size, *, channels: int = 1, flip_axes: Sequence[int] = ()
    ) -> SampleParameters:
        """Draw the parameters of one sample.

        Args:
            rng: The sample's own generator.
            patch_size: Voxels of the patch; two or three axes.
            channels: Number of channels.
            flip_axes: Spatial axes that may be mirrored.

        Returns:
            What to apply.
        """
        spatial = SpatialDraw(flips=(False,) * len(patch_size))
        if self.spatial is not None:
            with _noted("transform: spatial"):
                spatial = self.spatial.draw(rng, patch_size=patch_size, flip_axes=flip_axes)
        intensity = {}
        for name, transform in self.intensity.items():
            with _noted(f"transform: {name}"):
                drawn = transform.draw(rng, channels=channels, patch_size=patch_size)
            if drawn is not None:
                intensity[name] = drawn
        return SampleParameters(spatial=spatial, intensity=intensity)

    def __call__(self, batch: Batch, *, patch_size: Size, seed: int, flip_axes: tuple[int, ...]) -> Batch:
        """Augment a batch.

        Args:
            batch: At `source_size(patch_size)`, on any device.
            patch_size: Voxels of the result.
            seed: Seed of the run; with each sample's `n` the key of its parameters.
            flip_axes: Spatial axes that may be mirrored.

        Returns:
            A new batch at `patch_size`, on the same device. Where nothing was drawn it holds the same values to the
            bit, and outside `valid` no intensity transform changes any.

        Raises:
            Exception: Whatever a transform raised, with notes that name the transform and the cases of the batch.
        """
        with _noted(f"cases: {', '.join(dict.fromkeys(batch.case_id))} (n={batch.n[0]} to {batch.n[-1]})"):
            return self._augmented(batch, patch_size=patch_size, seed=seed, flip_axes=flip_axes)

    def _augmented(self, batch: Batch, *, patch_size: Size, seed: int, flip_axes: tuple[int, ...]) -> Batch:
        size, channels = tuple(patch_size), batch.image.shape[1]
        drawn = [self.draw(generator(seed, n, _STREAM), size, channels=channels, flip_axes=flip_axes) for n in batch.n]
        return self.apply(batch, drawn, size, together=batch.image.device.type != "cpu")

    def apply(self, batch: Batch, drawn: Sequence[SampleParameters], patch_size: Size, *, together: bool) -> Batch:
        """Apply what was drawn, without asking the batch's device for anything.

        Args:
            batch: At `source_size(patch_size)`, on any device.
            drawn: One for each sample.
            patch_size: Voxels of the result.
            together: All samples and channels in one launch, since on an accelerator a launch costs more than the
                voxels. Otherwise one after the other, as is right for a CPU: a channel stays in the cache, and neither
                the order of a sum nor whether there is a mask, so no last digit, depends on what else is in the batch.

        Returns:
            A new batch at `patch_size`.
        """
        # Under autocast the image would be rounded to eight bits wherever a transform multiplies matrices.
        with torch.no_grad(), torch.autocast(batch.image.device.type, enabled=False):
            with _noted("transform: spatial"):
                placed = place(batch, [one.spatial for one in drawn], patch_size, together=together)
            groups = [range(len(drawn))] if together else [range(b, b + 1) for b in range(len(drawn))]
            for group in groups:
                chosen = slice(group[0], group[-1] + 1)
                image, valid = placed.image[chosen], None if placed.valid is None else placed.valid[chosen]
                if not together and valid is not None and bool(valid.view(torch.uint8).amin()):
                    valid = None
                for name, transform in self.intensity.items():
                    with _noted(f"transform: {name}"):
                        _change_channels(image, valid, transform, [drawn[b].intensity.get(name) for b in group])
        return placed


@contextmanager
def _noted(text: str) -> Iterator[None]:
    """Adds a line to whatever is raised: what was being done, to what. The kind of error stays as it is."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


def _change_channels(
    image: Float[Tensor, "B C *S"],
    valid: Bool[Tensor, "B 1 *S"] | None,
    transform: IntensityTransform,
    drawn: Sequence[ChannelDraws | None],
) -> None:
    """Apply one transform to the drawn channels of `image`, in place: one call for those of all samples.

    A single sample's channels are changed one after the other, as views.
    """
    rows: list[tuple[int, int, Any]] = [
        (b, c, one)
        for b, sample in enumerate(drawn)
        if sample is not None
        for c, one in enumerate(sample)
        if one is not None
    ]
    if len(drawn) == 1:
        for _, c, one in rows:
            image[:, c : c + 1] = transform.apply(image[:, c : c + 1], valid, [one])
    elif rows:
        images = torch.stack([image[b, c] for b, c, _ in rows])[:, None]
        inside = None if valid is None else torch.stack([valid[b] for b, _, _ in rows])
        changed = transform.apply(images, inside, [one for _, _, one in rows])
        for (b, c, _), one in zip(rows, changed[:, 0], strict=True):
            image[b, c] = one
