"""Memory that a step frees stays with the process for the next one.

Feature maps are tens of megabytes. By its defaults glibc fetches a block of that size from the system at each
allocation and gives it back at each release, so that every step touches all of its memory for the first time: the
system clears it page by page. A training step of a plain 3D U-Net of 16.5 M parameters, (2, 1, 64, 64, 64) in bfloat16
on one core, met 228,000 page faults and took 2.4 s; with the memory kept it met 2 and took 1.85 s, at 1.3 instead of
1.1 GB. Nothing that is computed changes.

How much more memory that takes is a matter of chance: a freed block of which something small has taken a piece does not
serve for the next large one, and the heap grows by that. With blocks of 370 MB one prediction in two grew by ten of
them. Where a limit was promised nothing is kept.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_BLOCK = 1 << 30
"""Bytes; larger ones still come from the system and go back to it. mallopt takes an int."""
_NOTHING = 128 << 10
"""Bytes: glibc's own value of both thresholds; once set, it no longer follows the blocks that are freed."""


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, for the rest of the process and in processes forked from it.

    Returns:
        Whether it does: only glibc has this switch; other libraries are left as they are.
    """
    # A trim threshold of -1 is the largest there is: the top of the heap is never given back.
    return _set_thresholds(_LARGEST_BLOCK, -1)


def give_back_freed_memory() -> bool:
    """Let the system have what was freed and kept, and from now on large blocks as soon as they are freed.

    Returns:
        Whether it has them: only glibc can be asked to.
    """
    return _set_thresholds(_NOTHING, _NOTHING) and bool(ctypes.CDLL(None).malloc_trim(0))


def _set_thresholds(largest_kept: int, top_kept: int) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, largest_kept)) and bool(mallopt(_M_TRIM_THRESHOLD, top_kept))
