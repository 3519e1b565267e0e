"""R10. MLflow's backend down at the start, in the middle or at the end, slow, failing, or its sqlite file locked: no
exception, training waits for nothing, and `segkit sync` afterwards gives exactly the points of the run's journals.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from tests.mlflow_stores import doubles, in_journal, in_store, params, record, select, status, tags
from tests.reliability.failing_server import FailingServer, black_hole, refusing_url, wait_until_up

import segkit.tracking.store as store_module
import segkit.tracking.uploader as uploader_module
from segkit.configuration import compose
from segkit.errors import StorageError
from segkit.runs.directory import RunDirectory
from segkit.tracking.facts import DataFacts, begin_life
from segkit.tracking.uploader import Uploader
from segkit.workflows.sync import run as sync
from segkit.workflows.train import run as train

pytestmark = [
    pytest.mark.alone,
    pytest.mark.filterwarnings("ignore"),  # MLflow's and SQLAlchemy's own
]
CONFIG = {"tracking": {"name": "mlflow"}, "trainer": {"max_epochs": 3}}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "runs" / "r").create()
    directory.save_config(CONFIG)
    return directory


@pytest.fixture(scope="module")
def mlflow_imported() -> None:
    """Its import may take the thread tens of seconds on a busy machine: as long as a test waits for an outage."""
    __import__("segkit.tracking.mlflow")


@pytest.fixture
def no_retries(monkeypatch, mlflow_imported) -> None:
    """One try a request, and the next round soon: what the retries do is MLflow's, and takes seconds."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(uploader_module, "_FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(uploader_module, "_LONGEST_PAUSE_S", 0.1)


@pytest.fixture
def impatient_sqlite(monkeypatch, size) -> Iterator[None]:
    """A locked file is waited for 50 ms; the 20 s that MLflow asks sqlite for are waited at full size."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def shorter(_connection, _cursor, statement, parameters, _context, _many):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), parameters

    if size(True, False):
        monkeypatch.setattr(store_module, "_BUSY_S", 0.05)
        event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    yield
    if size(True, False):
        event.remove(Engine, "before_cursor_execute", shorter)


def until(condition, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def life(run: RunDirectory, uploader: Uploader) -> None:
    """What training does for the copy, without the training."""
    run.save_status("running")
    begin_life(run, CONFIG, tags={"host": "a"}, data=[DataFacts("d", "a" * 16, "/d", "training")])
    uploader.begin()
    for epoch in range(1, 4):
        record(run, range(2 * epoch - 1, 2 * epoch + 1))
        uploader.sync()
    run.save_status("finished", reason="done")


def is_whole(run: RunDirectory, store: Path) -> None:
    """The copy has everything, once."""
    ((run_id,),) = select(store, "SELECT run_uuid FROM runs WHERE name = ?", run.name)
    assert in_store(store, run_id) == in_journal(run)
    assert doubles(store) == []
    assert status(store, run_id) == "FINISHED"
    assert tags(store, run_id)["host"] == "a"
    assert tags(store, run_id)["segkit.ended"] == "done"
    assert params(store, run_id)["trainer.max_epochs"] == "3"
    assert select(store, "SELECT name, digest FROM datasets") == [("d", "a" * 16)]


def sync_into(run: RunDirectory, **store: object) -> None:
    words = [f"{key.replace('_', '.')}={value}" for key, value in store.items()]
    sync(compose("sync", [f"run={run.path}", *words]))


@pytest.mark.parametrize(
    "script", ["refused", "black hole", "500", "404", "403", "429", "close", "half", "garbage", "html", "list", "slow"]
)
def test_server_that_fails_throughout(run, make_store, no_retries, script, caplog):
    with contextlib.ExitStack() as stack:
        if script == "refused":
            url = refusing_url()
        elif script == "black hole":
            url = stack.enter_context(black_hole())
        else:
            url = stack.enter_context(FailingServer([script], delay_s=5)).url
        uploader = Uploader(run, store=url)
        life(run, uploader)
        assert uploader.end("FINISHED", reason="done", timeout_s=60.0) is False
        assert not uploader._thread.is_alive()
        assert uploader.failures >= 1
        assert sum("Training goes on" in line.message for line in caplog.records) == 1
        assert "python -m segkit.sync" in caplog.text
        with pytest.raises(StorageError) as told:
            sync_into(run, tracking_uri=url)
    assert told.value.exit_code == 74
    assert url in str(told.value)
    assert "the run folder has everything" in str(told.value)
    store = make_store()
    sync_into(run, paths_mlflow=store)
    is_whole(run, store)


@pytest.mark.parametrize("when", ["start", "middle", "end"])
def test_sqlite_locked_for_a_while(run, make_store, no_retries, impatient_sqlite, when):
    store = make_store()
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as other:
        if when == "start":
            other.execute("BEGIN EXCLUSIVE")
        uploader = Uploader(run, store=store)
        begin_life(run, CONFIG, tags={"host": "a"}, data=[DataFacts("d", "a" * 16, "/d", "training")])
        uploader.begin()
        record(run, range(1, 5))
        uploader.sync()
        if when == "start":
            until(lambda: uploader.failures >= 2)
            other.execute("ROLLBACK")
        until(lambda: len(in_store(store)) == len(in_journal(run)))
        if when != "start":
            other.execute("BEGIN EXCLUSIVE")
        record(run, range(5, 7))
        uploader.sync()
        run.save_status("finished", reason="done")
        if when == "middle":
            until(lambda: uploader.failures >= 2)
            other.execute("ROLLBACK")
        complete = uploader.end("FINISHED", reason="done")
    if when == "end":
        assert complete is False
        sync_into(run, paths_mlflow=store)
    else:
        assert complete is True
    is_whole(run, store)


def test_training_without_a_server_ends_as_it_does_without_tracking(
    run_config, end_state, assert_bitwise_equal, make_store, monkeypatch, capfd
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url = refusing_url()
    path = train(run_config("down", "tracking=mlflow", f"tracking.uri={url}")).directory.path
    assert_bitwise_equal(end_state(train(run_config("off")).directory.path), end_state(path))
    run = RunDirectory(path)
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "segkit.sync" in said
    store = make_store()
    sync_into(run, paths_mlflow=store)
    ((run_id,),) = select(store, "SELECT run_uuid FROM runs")
    assert in_store(store, run_id) == in_journal(run)
    assert doubles(store) == []
    assert status(store, run_id) == "FINISHED"
    assert "segkit.dataset" in tags(store, run_id)
    assert select(store, "SELECT status FROM logged_models") == [(2,)]  # ready
    assert {row[0] for row in select(store, "SELECT value FROM input_tags")} == {"training", "validation"}
    assert params(store, run_id)["trainer.steps_per_epoch"] == "3"


EXIT = """
import sys
from pathlib import Path
from segkit.runs.directory import RunDirectory
from segkit.tracking.facts import begin_life
from segkit.tracking.uploader import Uploader
run = RunDirectory(Path(sys.argv[1])).create()
begin_life(run, {"a": 1})
uploader = Uploader(run, store=sys.argv[2])
uploader.begin()
uploader._thread.join(float(sys.argv[3]))
assert uploader._thread.is_alive()
assert uploader.end("FINISHED", timeout_s=0.1) is False
print("at the end")
"""


def test_a_process_leaves_at_once_while_the_thread_still_waits(tmp_path):
    with FailingServer(["slow"], delay_s=300) as server:
        started = time.monotonic()
        words = [sys.executable, "-c", EXIT, str(tmp_path / "r"), server.url, "1"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == (0, "at the end\n"), done.stderr
        assert time.monotonic() - started < 30  # three tries of a request take 60 s


OPEN = """
import os, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from segkit.runs.directory import RunDirectory
from segkit.tracking.mlflow import MlflowCopy
children = []
for number in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        try:
            run = RunDirectory(Path(sys.argv[1]) / str(number)).create()
            MlflowCopy(run, store=Path(sys.argv[1]) / "mlflow.db").begin()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    children.append(pid)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


@pytest.mark.slow
def test_processes_that_open_a_store_at_once_make_its_tables_once(tmp_path, size):
    starters = size(2, 16)
    words = [sys.executable, "-c", OPEN, str(tmp_path), str(starters)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len(select(tmp_path / "mlflow.db", "SELECT run_uuid FROM runs")) == starters
    assert select(tmp_path / "mlflow.db", "SELECT count(*) FROM experiments WHERE name = 'segkit'") == [(1,)]


# -- full size only ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_server(size, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """`mlflow server` over a sqlite file: its address and the file."""
    if size(True, False):
        pytest.skip("full size only: it starts a server")
    folder, url = tmp_path_factory.mktemp("server"), refusing_url()
    store = folder / "server.db"
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    words += ["--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(folder / "artifacts")]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen([*words, "--workers", "1"], stdout=log, stderr=log, env=os.environ, cwd=folder) as process,
    ):
        try:
            wait_until_up(url)
            yield url, store
        finally:
            process.terminate()


FLAKY = {
    "down at the start": ["500"] * 12 + ["ok"],
    "down in the middle": ["ok"] * 10 + ["close"] * 9 + ["ok"],
    "down at the end": ["ok"] * 12 + ["500"],
    "every third fails": ["ok", "ok", "500"] * 200 + ["ok"],
    "resets and garbage": ["ok", "close", "ok", "garbage", "ok", "half"] * 100 + ["ok"],
    "slow": ["slow"],
}


@pytest.mark.slow
@pytest.mark.parametrize("script", FLAKY)
def test_a_real_server_behind_failures_has_everything_once(real_server, tmp_path, monkeypatch, script):
    monkeypatch.setattr(uploader_module, "_FIRST_PAUSE_S", 0.1)
    url, store = real_server
    run = RunDirectory(tmp_path / script.replace(" ", "-")).create()
    run.save_config(CONFIG)
    with FailingServer(FLAKY[script], behind=url, delay_s=0.5) as server:
        uploader = Uploader(run, store=server.url)
        life(run, uploader)
        assert len(in_journal(run)) == 12
        until(lambda: len(server.requests) >= 12)
        complete = uploader.end("FINISHED", reason="done", timeout_s=90.0)
        requests = len(server.requests)
        sys.stdout.write(f"{script}: complete {complete}, {uploader.failures} failures, {requests} requests\n")
        server.script = ["ok"]
        if not complete:
            until(lambda: not uploader._thread.is_alive(), 120)
            sync_into(run, tracking_uri=server.url)
        is_whole(run, store)


class _FitClock(Callback):
    """Seconds from the first step to the last."""

    seconds = 0.0

    def on_train_start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_speed_of_training(run_config, size, tmp_path):
    """Writes the ratio of the time with a failing server to the time without tracking; asserts only that nothing is
    waited for: a request that was would cost 20 s.
    """
    if size(True, False):
        pytest.skip("full size only: minutes of training")
    steps = ["tracking=mlflow", "trainer.steps_per_epoch=40", "trainer.max_epochs=4", "trainer.log_every_n_steps=1"]
    scripts = {"off": None, "refused": None, "black hole": None, "500": ["500"], "close": ["close"], "10 s": ["slow"]}
    seconds: dict[str, list[float]] = {name: [] for name in scripts}
    train(run_config("warm", *steps[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        __import__("segkit.tracking.mlflow")  # its import is not what is measured
    for turn in range(4):
        for name, script in scripts.items():
            with contextlib.ExitStack() as stack:
                if name == "off":
                    words = ["tracking=none"]
                elif name == "refused":
                    words = [f"tracking.uri={refusing_url()}"]
                elif name == "black hole":
                    words = [f"tracking.uri={stack.enter_context(black_hole())}"]
                else:
                    words = [f"tracking.uri={stack.enter_context(FailingServer(script, delay_s=10)).url}"]
                config = run_config(f"{name.replace(' ', '-')}-{turn}", *steps, *words)
                clock = _FitClock()
                train(config | {"tracking": config["tracking"] | {"wait_s": 1.0}}, callbacks=[clock])
                seconds[name].append(clock.seconds)
    base = min(seconds["off"])
    for name, taken in seconds.items():
        ratio = min(taken) / base
        sys.stdout.write(f"{name}: {min(taken):.2f} s, ratio {ratio:.4f}, all {[round(t, 2) for t in taken]}\n")
    assert all(min(taken) < 1.5 * base for taken in seconds.values())
