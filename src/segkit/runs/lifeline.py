"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys
import threading
import time

_WATCH_S = 1.0
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process when its starter is gone, within a second or so; loader workers end with their own starter.

    Args:
        parent: The starter's process id, as the starter knows it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="segkit-parent", daemon=True).start()


def killed_with_parent() -> None:
    """Have the kernel kill this process with its starter, also while it hangs in native code; on Linux.

    Its own children it would leave alone: for processes that have none.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
