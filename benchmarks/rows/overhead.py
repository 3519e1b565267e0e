"""What a whole image costs beside its network: tiles cut, weighted and summed."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Pair, Row, timed
from benchmarks.topology import CLASSES, Topology

TILE = Topology("tiles of 96x96x96", (96, 96, 96), 1, (32, 64, 128, 256))
"""Of it only the patch and the batch are used."""
SIDE = 256


class Trivial(nn.Module):
    """Logits that cost little: a copy of the image for each class, since the peers write into what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, *S) to (B, K, *S)."""
        return image.expand(-1, CLASSES, *image.shape[2:]).contiguous()


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """All on the same image, half a tile from tile to tile, no mirrored images."""
    side = bench.pick(SIDE, TILE.patch[0])
    image = torch.randn((1, side, side, side), generator=torch.Generator().manual_seed(0))
    network = Trivial().eval().to(bench.device)

    def contender(make: Callable[[], Callable[[], object]]) -> Contender:
        return Contender(lambda: timed(make(), unit="s"), "float32")

    def ours() -> Callable[[], object]:
        from segkit.inference.predictor import Predictor

        predict = Predictor(network, patch_size=TILE.patch, num_classes=CLASSES, device=bench.device)
        return lambda: predict(image)

    def nnunet() -> Callable[[], object]:
        from benchmarks.peers.nnunet import predictor

        predict = predictor(bench, TILE, network=network)
        return lambda: predict.predict_sliding_window_return_logits(image).cpu()

    def monai() -> Callable[[], object]:
        from benchmarks.peers.monai import predictor

        predict = predictor(bench, TILE, model=network)
        return lambda: predict(image)

    return {"segkit": contender(ours), "nnU-Net": contender(nnunet), "MONAI": contender(monai)}


ROW = Row(
    name="overhead",
    title="Whole image without its network",
    what=f"Logits of an image of {SIDE}x{SIDE}x{SIDE} voxels by sliding window, tiles of 96x96x96 half a tile apart, "
    f"Gaussian weights, {CLASSES} classes, and a network that shows the image once for each of them.",
    unit="s",
    contenders=contenders,
    pairs=(Pair("nnU-Net", "segkit"), Pair("MONAI", "segkit")),
    rounds=5,
)
