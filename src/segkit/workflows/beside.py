"""What goes on beside the prediction of an image: the next one is read, the last mask is written, a thread each."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class ReadAhead(Generic[Item, Result]):
    """One item may be read before it is asked for. To be closed: `contextlib.closing`.

    Args:
        read: What is done with an item. What it raises is raised where the item is asked for.
    """

    def __init__(self, read: Callable[[Item], Result]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="segkit-reading")
        self._begun: tuple[Item, Future[Result]] | None = None

    def begin(self, item: Item) -> None:
        """Read an item while something else is done."""
        self._begun = (item, self._pool.submit(self._read, item))

    def get(self, item: Item) -> Result:
        """The item, which is read now unless it was begun."""
        begun, self._begun = self._begun, None
        return begun[1].result() if begun is not None and begun[0] is item else self._read(item)

    def close(self) -> None:
        """Wait for what is being read, and forget it."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class WriteBehind:
    """One thing is finished while the next one is begun. To be closed, which waits for it, whatever else happened.

    How a thing went is told in the thread of the caller, in the order in which things were given.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="segkit-writing")
        self._last: tuple[Future[None], Callable[[Future[None]], None]] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is not finished."""
        return self._last is not None and not self._last[0].done()

    def submit(self, work: Callable[[], None], *, done: Callable[[Future[None]], None]) -> None:
        """Wait for the one before, then begin the next.

        Args:
            work: What is done.
            done: Called with it once it is done, or has failed, by whoever waits for it.
        """
        self.wait()
        self._last = (self._pool.submit(work), done)

    def wait(self) -> None:
        """Wait for what was begun, and tell how it went; what `done` raises is raised here."""
        if self._last is None:
            return
        (future, done), self._last = self._last, None
        future.exception()  # waits
        done(future)

    def close(self) -> None:
        """Wait, tell, and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown(wait=True)
