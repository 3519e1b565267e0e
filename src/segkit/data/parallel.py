"""Mapping a function over cases in several processes, in order, with the caller told of progress."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from typing import TypeVar

from segkit.runs.lifeline import killed_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

_PRELOADED = ["segkit.data.store", "segkit.data.deliveries"]


def worker_context() -> multiprocessing.context.BaseContext:
    """Start method of all our child processes: forkserver where there is one, else spawn.

    A process with threads (torch, MLflow) must not be forked; the server is forked from before they exist. It
    imports what a child needs once, so that a child starts in milliseconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def die_with_parent() -> None:
    """Let the system kill this child process when its server ends, which it then does with the main process.

    A child would otherwise stay for ever where the main process was killed: it waits for work from a pipe whose other
    end it holds too. And so would the server, which waits for the last holder of a pipe that each child is given for
    starting further processes; this child starts none, and lets go of it. Only Linux has such a signal.
    """
    if sys.platform != "linux" or multiprocessing.parent_process() is None:
        return
    killed_with_parent()
    held = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if held is not None:
        os.close(held)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    on_done: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """`[function(item) for item in items]`, by `workers` processes; 0 or 1: in this one.

    Args:
        function: Picklable where there are workers.
        items: Inputs.
        workers: Processes.
        on_done: Called with (done, total) after each item.

    Raises:
        Exception: The first one that `function` raised, in the order of the items.
    """
    results: list[Result] = []
    for result in _results(function, items, min(workers, len(items))):
        results.append(result)
        if on_done is not None:
            on_done(len(results), len(items))
    return results


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=die_with_parent) as pool:
        try:
            yield from pool.map(function, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
