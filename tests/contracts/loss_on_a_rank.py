"""One rank of two, started by test_every_loss: the gradient of each loss for this rank's half of a batch.

    python loss_on_a_rank.py RANK FOLDER

reads FOLDER/cases.pt, {name: (loss, logits, target)}, and writes FOLDER/RANK.pt, {name: gradient of its half}.
"""

import sys
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist


def main(rank: int, folder: Path) -> None:
    """Join the other rank, then go through the losses in the order of the file, as it does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    gradients = {}
    for name, (loss, logits, target) in torch.load(folder / "cases.pt", weights_only=False).items():
        half = slice(rank * len(logits) // 2, (rank + 1) * len(logits) // 2)
        own = {f.name: v[half] for f in fields(target) if isinstance(v := getattr(target, f.name), Tensor)}
        mine = logits[half].clone().requires_grad_()
        loss(mine, replace(target, **own)).backward()
        gradients[name] = mine.grad
    torch.save(gradients, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
