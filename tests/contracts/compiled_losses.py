"""The gradient of each loss by torch.compile, in a process without the checks of shapes that tests lay round functions.

    python compiled_losses.py FOLDER

reads FOLDER/cases.pt, {name: (loss, logits, target)}, and writes FOLDER/compiled.pt, {name: gradient}.
"""

import sys
from pathlib import Path

import torch


def main(folder: Path) -> None:
    """Compile each and go forward and backward."""
    gradients = {}
    for name, (loss, logits, target) in torch.load(folder / "cases.pt", weights_only=False).items():
        x = logits.clone().requires_grad_()
        torch.compile(loss)(x, target).backward()
        gradients[name] = x.grad
        torch.compiler.reset()
    torch.save(gradients, folder / "compiled.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
