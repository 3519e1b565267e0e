"""Small images with components, and the sums over masks that the slow references are written with."""

import numpy as np
import torch

from segkit.ops.instances import components_by_class, voronoi_cells
from segkit.types import Target


def target_of(label, *, spacing=None):
    """A target with components by class and their cells, as the data module makes it; label (B, *S)."""
    label = np.asarray(label)
    spacing = spacing or (1.0,) * (label.ndim - 1)
    ids = [components_by_class(sample) for sample in label]
    cells = [voronoi_cells(sample, spacing) for sample in ids]
    return Target(
        label=torch.from_numpy(label)[:, None].long(),
        instances=torch.from_numpy(np.stack(ids))[:, None],
        cells=torch.from_numpy(np.stack(cells))[:, None],
        spacing=spacing,
        num_instances=max(int(sample.max()) for sample in ids),
    )


def sample(shape, *, num_classes=3, batch=3, seed=0):
    """Logits, and a target in which the last image has no component and a tenth of the voxels is ignored."""
    rng = np.random.default_rng(seed)
    label = np.where(rng.random((batch, *shape)) < 0.15, rng.integers(1, num_classes, (batch, *shape)), 0)
    label[-1] = 0
    target = target_of(label)
    target.label[torch.from_numpy(rng.random((batch, 1, *shape)) < 0.1)] = -1
    return torch.from_numpy(2 * rng.standard_normal((batch, num_classes, *shape))), target


class Image:
    """One image of a batch as flat arrays: label, ids, cells, and p_y, p_f and -log p_y of each voxel."""

    def __init__(self, logits, target, number, activation):
        x = logits[number].double().numpy().reshape(logits.shape[1], -1)
        self.label = target.label[number].numpy().ravel()
        self.ids = target.instances[number].numpy().ravel()
        self.cells = target.cells[number].numpy().ravel()
        voxels = np.arange(len(self.label))
        if activation == "softmax":
            log_p = x - np.log(np.exp(x).sum(0))
            p, self.surprise = np.exp(log_p), -log_p[self.label, voxels]
        else:
            p = 1 / (1 + np.exp(-x))
            truth = np.arange(len(x))[:, None] == self.label
            self.surprise = -np.where(truth, np.log(p), np.log(1 - p)).sum(0)
        self.p_y, self.p_f = p[self.label, voxels], p[1:].sum(0)
        self.inside, self.outside = self.label > 0, self.label == 0

    def components(self, min_voxels=1):
        """Masks of the components that are large enough, by id."""
        masks = {int(k): self.inside & (self.ids == k) for k in np.unique(self.ids[self.inside & (self.ids > 0)])}
        return {k: mask for k, mask in masks.items() if mask.sum() >= min_voxels}

    def background_in_cell(self, value, k, components):
        """Sum over the background of cell k, and its share of the cells without a component."""
        own = value[self.outside & (self.cells == k)].sum()
        nobodys = value[self.outside & ~np.isin(self.cells, list(components))].sum()
        return own + nobodys / len(components)


def images(logits, target, activation):
    return [Image(logits, target, number, activation) for number in range(len(logits))]
