"""Freed memory: kept by the process, without a page to be fetched again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from segkit.ops.freed_memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    return len(bytearray(b"x") * (64 << 20))

use()
before = faults()
use()
print(faults() - before)
"""


def fetched_pages(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this switch")
def test_a_second_block_of_the_size_fetches_no_page():
    # 64 MiB are 16384 pages of 4 KiB, or 32 of 2 MiB.
    assert fetched_pages("leave") >= 32
    assert fetched_pages("keep") < 16
