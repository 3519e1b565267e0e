"""MONAI: its network of nnU-Net's topology, its loss, sliding window, transforms and loader.

Its packages do not say which names they export, so they are taken as untyped modules.
"""

import importlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from benchmarks.bench import Bench, synchronise
from benchmarks.topology import CLASSES, Topology

IMPORTS = ("monai.networks.nets.dynunet", "monai.losses")


def network(topology: Topology, device: str) -> nn.Module:
    """DynUNet of the topology, with one head.

    Its supervised levels would be brought to full size, which ours and nnU-Net's are not.
    """
    nets: Any = importlib.import_module("monai.networks.nets.dynunet")
    torch.manual_seed(0)
    made: nn.Module = nets.DynUNet(
        3,
        1,
        CLASSES,
        kernel_size=topology.kernels,
        strides=topology.strides,
        upsample_kernel_size=topology.strides[1:],
        filters=list(topology.features),
        trans_bias=True,
    )
    return made.to(device)


def loss() -> nn.Module:
    """Dice without background plus cross-entropy, as nnU-Net's and ours."""
    losses: Any = importlib.import_module("monai.losses")
    made: nn.Module = losses.DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    return made


def step(bench: Bench, topology: Topology, *, autocast: torch.dtype | None) -> Callable[[], None]:
    """The training loop of its tutorials on one batch that stays the same, with nnU-Net's optimizer."""
    model, criterion = network(topology, bench.device), loss()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    image, label = topology.inputs(bench.device)

    def one() -> None:
        optimizer.zero_grad(set_to_none=True)
        with nullcontext() if autocast is None else torch.autocast(bench.device, dtype=autocast):
            value = criterion(model(image), label)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimizer.step()
        synchronise(bench)

    return one


def transforms(patch: Sequence[int]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What of nnU-Net's recipe it has, with nnU-Net's probabilities for one channel.

    Rotation and scaling are drawn together (0.36 = 1 - 0.8^2), scaling by axis.
    """
    t: Any = importlib.import_module("monai.transforms")
    both, turn = ["image", "label"], (0.5235987755982988,) * 3
    made: Callable[[dict[str, Any]], dict[str, Any]] = t.Compose(
        [
            t.RandAffined(
                both,
                prob=0.36,
                rotate_range=turn,
                scale_range=((-0.3, 0.4),) * 3,
                spatial_size=patch,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            t.RandGaussianNoised("image", prob=0.1, std=0.316),
            t.RandGaussianSmoothd("image", prob=0.1, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0)),
            t.RandScaleIntensityd("image", factors=0.25, prob=0.15),
            t.RandScaleIntensityFixedMeand("image", factors=0.25, preserve_range=True, prob=0.15),
            t.RandSimulateLowResolutiond("image", prob=0.125, zoom_range=(0.5, 1.0)),
            t.RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
            t.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            *(t.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
        ]
    )
    return made


def batches(cases: Sequence[dict[str, torch.Tensor]], source: Sequence[int], batch: int) -> Callable[[], object]:
    """The next batch of its cached data set and torch's loader in this process, one cut in three with foreground."""
    t: Any = importlib.import_module("monai.transforms")
    data: Any = importlib.import_module("monai.data")
    both = ["image", "label"]
    cut = t.Compose(
        [
            t.SpatialPadd(both, source),
            t.RandCropByPosNegLabeld(both, "label", source, pos=1, neg=2, num_samples=1),
        ]
    )
    loader = data.DataLoader(
        data.CacheDataset(cases, cut, progress=False), batch_size=batch, shuffle=True, num_workers=0
    )

    def endless() -> Any:  # noqa: ANN401
        while True:
            yield from loader

    stream = endless()
    return lambda: next(stream)


def predictor(
    bench: Bench, topology: Topology, *, model: torch.nn.Module | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Its sliding window with Gaussian weights, tiles half a patch apart, in batches as in training.

    Args:
        bench: Device.
        topology: Network, tile and batch.
        model: Another network than that of the topology.
    """
    inferers: Any = importlib.import_module("monai.inferers")
    model = network(topology, bench.device).eval() if model is None else model

    def predict(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            batch = image[None].to(bench.device)
            logits: torch.Tensor = inferers.sliding_window_inference(
                batch, topology.patch, topology.batch, model, 0.5, mode="gaussian"
            )
        return logits.cpu()

    return predict
