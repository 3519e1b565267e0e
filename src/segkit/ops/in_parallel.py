"""One function over many pieces of work on the threads that torch may use, each piece on one of them.

Torch divides every single operation among its threads, and each operation waits for the slowest. Where the processors
are shared - with the loader's workers, or with another run - a thread that has to wait for its turn holds up all of
them at every operation; a chain of some dozens over small maps then takes many times its time. Here threads meet once,
at the end of all pieces, and results do not depend on their number.
"""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
"""By process, for a forked one has none of its parent's threads, and by number of threads."""
_making = threading.Lock()


def in_parallel(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """The results of `function` in the order of the pieces, computed without gradients and without autocast.

    Args:
        function: Torch operations on tensors of the CPU; large ones, as they share Python's lock between them.
        pieces: What it is called with.
    """
    work = list(pieces)
    threads = torch.get_num_threads()

    def without_gradients(piece: Piece) -> Result:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return function(piece)

    # Whoever follows the operations (a tracer, a counter) follows this thread alone.
    if threads == 1 or len(work) < 2 or torch._C._len_torch_dispatch_stack() > 0:
        return [without_gradients(piece) for piece in work]
    return list(_pool(threads).map(without_gradients, work))


def _pool(threads: int) -> ThreadPoolExecutor:
    """As many threads, in each of which torch uses only that one."""
    with _making:
        key = (os.getpid(), threads)
        if key not in _pools:
            started = threading.Barrier(threads + 1)

            def start() -> None:
                torch.get_num_threads()  # takes the number of the process, and only once; what is set later stays
                torch.set_num_threads(1)
                started.wait()

            pool = ThreadPoolExecutor(threads, thread_name_prefix="segkit-in-parallel")
            for _ in range(threads):
                pool.submit(start)
            started.wait()
            # What a thread sets holds for itself and for threads that begin later: the latter is put back.
            torch.set_num_threads(threads)
            _pools[key] = pool
        return _pools[key]
