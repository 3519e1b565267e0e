"""Numbers that do not fit into memory: zeros in a file without a name, mapped, of which parts are let go again."""

import math
import mmap
import os
import tempfile
from pathlib import Path

import torch

from segkit.types import Size

_VALUE = 4
"""Bytes of a float32."""


class Spilled:
    """A float32 tensor of zeros whose memory is a file.

    The file has no name: it is gone with the process, however that ends. Its room is taken at once, so that a full
    disk is an error here and not a signal later. Pages that were let go stay with the system, which keeps them in
    memory it has no other use for, or writes them out.

    Args:
        shape: Of the tensor.
        folder: On the disk where the file is to lie.

    Raises:
        OSError: There is no room, or no such folder.
    """

    def __init__(self, shape: Size, folder: Path) -> None:
        size = _VALUE * math.prod(shape)
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            except OSError as error:
                error.filename = str(folder)  # the system does not say of what
                raise
            self._map = mmap.mmap(file.fileno(), size)
        self.tensor = torch.frombuffer(self._map, dtype=torch.float32).view(shape)

    def let_go(self) -> None:
        """Take all pages out of this process's memory; they come back, with what was written, where they are used."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
