"""Training under `torchrun`, for several machines: the first rank does what the starter does elsewhere.

It takes the lock, decides and prepares; the other ranks learn from torchrun's own store which run it is, and take
everything else from the run folder, which all machines must see.
"""

import os
from datetime import timedelta
from pathlib import Path

from torch.distributed import (  # type: ignore[attr-defined]  # documented, but not in its list of exports
    TCPStore,
    is_torchelastic_launched,
)

_LONGEST_PREPARATION = timedelta(days=2)


def joined_rank() -> int | None:
    """This process' number among the ranks that torchrun has started; None where it is alone."""
    return int(os.environ["RANK"]) if is_torchelastic_launched() else None


def joined_world() -> int:
    """How many ranks torchrun has started; 1 where this process is alone."""
    return int(os.environ["WORLD_SIZE"]) if is_torchelastic_launched() else 1


def local_ranks() -> int:
    """How many of them share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_torchelastic_launched() else 1


def announce(run: Path) -> None:
    """Tell the other ranks which run folder is ready for them."""
    _store().set(_key(), str(run))


def wait_for_run() -> Path:
    """Wait for the first rank's announcement; torchrun ends the wait where that rank fails."""
    store = _store()
    store.wait([_key()], _LONGEST_PREPARATION)
    return Path(store.get(_key()).decode())


def _key() -> str:
    return f"segkit/run/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _store() -> TCPStore:
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
