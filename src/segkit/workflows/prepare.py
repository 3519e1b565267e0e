"""`prepare`: crop, normalise, resample and store the training and tuning cases ahead of training."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from segkit.data.pipeline import Prepared, open_dataset, plan_dataset, prepare_dataset
from segkit.planning.device import device_facts


def run(config: Mapping[str, Any]) -> Prepared:
    """Prepare the data set of `config["data"]` for the plan of `config["plan"]`.

    Args:
        config: Resolved configuration.

    Returns:
        The entries. Test cases are not among them: `evaluate` prepares those when it opens them.
    """
    started = time.perf_counter()
    opened = open_dataset(config)
    device = device_facts(config["trainer"]["accelerator"])
    plan = plan_dataset(opened, config, device, on_done=_progress("looked at"))
    prepared = prepare_dataset(opened, plan, on_done=_progress("prepared"))
    entries = prepared.train + prepared.tuning
    size = sum(path.stat().st_size for entry in entries for path in entry.folder.iterdir())
    print(
        f"{opened.dataset.name}: {len(prepared.train)} training and {len(prepared.tuning)} tuning cases prepared "
        f"in {time.perf_counter() - started:.1f} s, {size / 2**20:.1f} MiB in {opened.store.root}"
    )
    return prepared


def _progress(verb: str) -> Callable[[int, int], None] | None:
    """A counter on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{verb} {done} of {total} cases", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
