"""What the tests of voxelwise losses share: samples, and the probabilities of a slow reference."""

import numpy as np
import torch


def sample(shape, *, num_classes=3, batch=2, ignored=0.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, num_classes, *shape, generator=generator, dtype=dtype)
    label = torch.randint(0, num_classes, (batch, 1, *shape), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = -1
    return logits, label


def probabilities(logits, activation):
    x = logits.double().numpy()
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-x))
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def nearest(mask, spacing):
    """Distance in mm of each voxel to the mask by the definition; None for an empty one."""
    inside = np.argwhere(mask)
    if not len(inside):
        return None
    result = np.empty(mask.shape)
    for voxel in np.ndindex(mask.shape):
        result[voxel] = np.linalg.norm((inside - voxel) * np.asarray(spacing), axis=1).min()
    return result


def signed(mask, known, spacing):
    """Signed distance by the definition; 0 where there is no border or nobody annotated."""
    outside, inside = nearest(mask & known, spacing), nearest(~mask & known, spacing)
    if outside is None or inside is None:
        return np.zeros(mask.shape)
    return np.where(known, outside - inside, 0.0)


def certain(label, num_classes, scale=20.0):
    """Logits that predict a label."""
    hot = torch.stack([(label[:, 0] == k).float() for k in range(num_classes)], 1)
    return scale * (2 * hot - 1)
