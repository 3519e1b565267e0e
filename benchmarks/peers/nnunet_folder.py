"""nnU-Net predicts a folder: `python -m benchmarks.peers.nnunet_folder BENCH IMAGES MASKS`.

What `nnUNetv2_predict` does after its command line: images are read and masks written by its processes, as many
as it starts by itself; tiles mirrored along all axes. The network was not trained.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.peers.nnunet import predictor
from benchmarks.topology import HIPPOCAMPUS_FULL


def main(arguments: Sequence[str]) -> None:
    """Predict every image of the folder."""
    settings, images, masks = arguments
    files = sorted(Path(images).iterdir())
    predictor(Bench.from_json(settings), HIPPOCAMPUS_FULL, mirror=True).predict_from_files(
        [[str(file)] for file in files], [str(Path(masks) / file.name.removesuffix("_0000.nii.gz")) for file in files]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
