"""The run as a person finds it in MLflow's pages, in a real browser."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segkit.configuration import compose
from segkit.workflows.train import run

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "-")]


@pytest.fixture
def page(nnunet_raw, tmp_path) -> Iterator[tuple[str, Path]]:
    """Address of a run in MLflow's pages, and the run folder."""
    config = compose(
        "train",
        ["debug=integration", f"data.root={nnunet_raw(cases=8)}", f"paths.runs={tmp_path / 'runs'}", "run_name=seen"],
    )
    path = run(config).directory.path
    known = json.loads((path / "mlflow.json").read_text())
    port = chromium.free_port()
    store = f"sqlite:///{tmp_path / 'runs/mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (
        (tmp_path / "ui.log").open("w") as log,
        subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"], stdout=log, stderr=log, env=environment, cwd=tmp_path
        ) as server,
    ):
        try:
            chromium.wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}/#/experiments/{known['experiment_id']}/runs/{known['run_id']}", path
        finally:
            server.terminate()


def test_the_run_its_curves_artifacts_and_model_are_there(page, tmp_path):
    address, path = page
    with chromium.browser(tmp_path) as browser:
        browser.open(address)
        browser.wait_for(
            "seen", "val/score", "val/dice/ball_a", "trainer.max_epochs", "Finished", "segkit.plan", "selection scores"
        )
        browser.open(f"{address}/model-metrics")
        browser.wait_for("train/dice", "val/iou", "val/precision", "val/recall")
        browser.open(f"{address}/artifacts")
        browser.wait_for("config.yaml", "plan.json", "split.json", "curves.png", "overlays", "per_case.csv")
        browser.screenshot(tmp_path / "artifacts.png")
        (model,) = json.loads((path / "mlflow.json").read_text())["models"].values()
        browser.open(f"{address.partition('/runs/')[0]}/models/{model}")
        browser.wait_for(model, "seen", "Ready", "selected/score", "selected/dice/ball_a", "Phantom")
        browser.screenshot(tmp_path / "model.png")
    assert (tmp_path / "artifacts.png").stat().st_size > 10_000
