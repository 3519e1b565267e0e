"""What all contenders of one run have in common: device, data, workspace, whether it is only a smoke run."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

DeviceKind: TypeAlias = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Bench:
    """Settings of a run, handed on to its processes as JSON.

    Args:
        device: What the contenders compute on.
        data: Folder of the images, in nnU-Net's raw layout.
        sample: Whether that is the data which ships with the package, because no other was named.
        workspace: Temporary folder for all that the contenders write.
        quick: A few rounds of little work, to see that everything runs; the figures mean nothing.
    """

    device: DeviceKind
    data: Path
    sample: bool
    workspace: Path
    quick: bool = False

    @property
    def cores(self) -> int:
        """Processor cores this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def pick(self, full: int, quick: int) -> int:
        """A number of rounds, samples or steps."""
        return quick if self.quick else full

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({key: str(v) if isinstance(v, Path) else v for key, v in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> "Bench":
        """The inverse of `to_json`."""
        record: dict[str, Any] = json.loads(text)
        return cls(**{**record, "data": Path(record["data"]), "workspace": Path(record["workspace"])})


def synchronise(bench: Bench) -> None:
    """Wait until the device has done what it was told."""
    if bench.device == "cuda":
        import torch

        torch.cuda.synchronize()
