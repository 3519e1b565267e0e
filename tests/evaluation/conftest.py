"""Cases of known content, and predictors that know the answer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segkit.types import Geometry, PreparedCase


def geometry(native_shape, *, spacing=None, crop=None):
    dimensions = len(native_shape)
    return Geometry(
        permutation=tuple(range(dimensions)),
        flips=(False,) * dimensions,
        native_shape=tuple(native_shape),
        native_spacing=tuple(spacing or (1.0,) * dimensions),
        crop=tuple(crop or ((0, n) for n in native_shape)),
    )


def boxes(shape, seed=0, classes=3):
    """A label with one box a class, corners drawn at random."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, dtype=np.int16)
    for index in range(1, classes):
        start = [int(rng.integers(0, max(1, n // 2))) for n in shape]
        label[tuple(slice(s, s + max(2, n // 3)) for s, n in zip(start, shape, strict=True))] = index
    return label


def case(native_label, *, case_id="a", group="a", image=None, way_back=None, instances=None, content="0"):
    """A case whose plan grid is the native one unless an image says otherwise."""
    image = np.zeros((1, *native_label.shape), dtype=np.float32) if image is None else image
    return PreparedCase(
        case_id=case_id,
        group=group,
        image=image,
        valid=None,
        label=None,
        native_label=native_label,
        native_instances=instances,
        geometry=way_back or geometry(native_label.shape),
        content_hash=content,
    )


def one_hot(label, classes=3):
    """Logits that say exactly this label, +-10."""
    return torch.from_numpy(np.stack([np.where(label == k, 10.0, -10.0) for k in range(classes)]).astype(np.float32))


@pytest.fixture
def made():
    """The helpers of this file: test modules do not import each other."""
    return SimpleNamespace(geometry=geometry, boxes=boxes, case=case, one_hot=one_hot)
