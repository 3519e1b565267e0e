"""Freed memory: kept by the process, without a page to be fetched again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from segkit.ops.freed_memory import give_back_freed_memory, keep_freed_memory

if sys.argv[1] != "leave":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    return len(bytearray(b"x") * (64 << 20))

use()
if sys.argv[1] == "give back":
    assert give_back_freed_memory()
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this switch")
def test_once_given_back_nothing_is_kept_any_more():
    assert fetched_pages("give back") >= 32


GIVE_BACK = """
from segkit.ops.freed_memory import give_back_freed_memory, keep_freed_memory
from segkit.planning.free_memory import resident_bytes

assert keep_freed_memory()
blocks = [bytearray(b"x") * (16 << 20) for _ in range(8)]
del blocks
kept, _ = resident_bytes()
assert give_back_freed_memory()
print(kept - resident_bytes()[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_what_is_kept_can_be_given_back():
    done = subprocess.run([sys.executable, "-c", GIVE_BACK], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 8 * (16 << 20)
