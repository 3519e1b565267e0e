"""How busy a GPU is, as its driver says."""

import math
import statistics
import subprocess

_EVERY_MS = 200
_QUERY = ("nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={_EVERY_MS}")


class Watch:
    """Samples the use of the first GPU five times a second, from where it is entered to where it is left.

    `mean` is then the mean share of the time in which a kernel ran, in [0, 1]; NaN if the driver said nothing.

    Raises:
        FileNotFoundError: When entered, where there is no nvidia-smi.
    """

    def __init__(self) -> None:
        self.mean = math.nan
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Watch":
        self._process = subprocess.Popen(_QUERY, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.terminate()
        use = parse(self._process.communicate()[0])
        self.mean = statistics.mean(use) / 100 if use else math.nan


def parse(output: str) -> list[float]:
    """Percentages, one a line; a line that was cut off, or that says the driver does not know, is left out."""
    return [float(line) for line in output.splitlines() if line.strip().isdigit()]
