"""One contender in a process of its own: `python -m benchmarks.run_one ROW CONTENDER BENCH RESULT`.

Started by the harness, not by hand. It writes what it measured to the file RESULT as JSON, with the memory that the
process had after its imports and at its most beside it.
"""

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.harness import Measured, Run
from benchmarks.memory import peak_mb
from benchmarks.process import STARTED, run_python
from benchmarks.rows import load


def apart(row: str, contender: str, bench: Bench) -> Run:
    """A run that starts such a process and reads what it wrote."""

    def run() -> Measured:
        with tempfile.TemporaryDirectory(dir=bench.workspace) as folder:
            result = Path(folder) / "result.json"
            words = ["-m", "benchmarks.run_one", row, contender, bench.to_json(), str(result)]
            run_python(words, environment={STARTED: str(time.time())})
            record = json.loads(result.read_text())
        return Measured(record["value"], record["beside"])

    return run


def main(arguments: Sequence[str]) -> None:
    """Build and run the contender, write the result."""
    name, who, settings, result = arguments
    bench = Bench.from_json(settings)
    contender = load(name).contenders(bench)[who]
    for module in contender.imports:
        importlib.import_module(module)
    baseline = peak_mb()
    measured = contender.build()()
    beside = {"imports_mb": baseline, "above_imports_mb": peak_mb() - baseline} if contender.imports else {}
    Path(result).write_text(json.dumps({"value": measured.value, "beside": {**beside, **measured.beside}}))


if __name__ == "__main__":
    main(sys.argv[1:])
