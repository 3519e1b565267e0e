"""Mapping a function over cases in several processes, in order, with the caller told of progress."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PRELOADED = ["segkit.data.store", "segkit.data.patches"]


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
    with ProcessPoolExecutor(workers, mp_context=worker_context()) as pool:
        try:
            yield from pool.map(function, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
