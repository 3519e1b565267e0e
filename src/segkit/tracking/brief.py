"""MLflow's patience with a store that does not answer, and its noise: minutes by default, seconds while segkit asks.

MLflow reads these variables at each request and has no other way to set them. Who has set them is left alone, and
they are gone again when the work is done, so that a notebook's own MLflow calls keep their defaults.
"""

import logging
import os
import threading
from typing import ClassVar

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # 7
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; 120
}
_CHATTY = (
    "urllib3.connectionpool",  # a warning for each retry
    "mlflow.store.db.utils",  # every error with its traceback, beside raising it
)


class BriefRequests:
    """Few retries, short waits and no chatter, from the first one's making until the last one's `end`.

    Made and ended by the thread that starts the work, not in the background: the environment belongs to all threads.
    """

    _guard = threading.Lock()
    _users = 0
    _mine: ClassVar[list[str]] = []
    _levels: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        self._ended = False
        with self._guard:
            BriefRequests._users += 1
            if BriefRequests._users == 1:
                self._mine[:] = [name for name in _SETTINGS if name not in os.environ]
                os.environ.update({name: _SETTINGS[name] for name in self._mine})
                self._levels.update({name: logging.getLogger(name).level for name in _CHATTY})
                for name in _CHATTY:
                    logging.getLogger(name).setLevel(logging.CRITICAL)

    def end(self) -> None:
        """Put back what was there before, unless another one is at work."""
        with self._guard:
            if self._ended:
                return
            self._ended = True
            BriefRequests._users -= 1
            if BriefRequests._users == 0:
                for name in self._mine:
                    os.environ.pop(name, None)
                for name, level in self._levels.items():
                    logging.getLogger(name).setLevel(level)
