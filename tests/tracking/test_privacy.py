"""`privacy=strict`: what reaches MLflow names no case, no person and no path, and holds no picture."""

import csv
import json
import re
import socket
import sqlite3
import warnings
from contextlib import closing

import pytest
import yaml
from tests.mlflow_stores import params, select, tags

from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, write_json
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.facts import DataFacts, begin_life, load_facts
from segkit.tracking.privacy import Privacy, StrictPrivacy, privacy_of
from segkit.workflows.evaluate import run as evaluate
from segkit.workflows.train import run as train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.mirror import mirror

STRICT = {"privacy": "strict", "data": {"root": "scans", "groups": "people.csv"}, "paths": {"runs": "here"}, "seed": 3}
SQLITE = "sqlite:////x/mlflow.db"


def in_tables(store):
    """Every text in every table of a sqlite store."""
    with closing(sqlite3.connect(store)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                yield from (str(value) for value in row if value is not None)


def in_files(folder):
    """Names below a folder, and contents of its files."""
    for path in folder.rglob("*"):
        yield path.relative_to(folder).as_posix()
        if path.is_file():
            yield path.read_bytes().decode("latin-1")


def found_in(texts, words):
    return {word for text in texts for word in words if word in text}


@pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own
def test_no_case_person_or_path_in_any_table_or_artifact(run_config, nnunet_raw, make_store, tmp_path):
    root = nnunet_raw(cases=9, people=9, num_classes=2, name="Dataset901_Secret")
    store = make_store("elsewhere/mlflow.db")
    words = ("privacy=strict", "tracking=mlflow", f"paths.mlflow={store}", "data.max_cases=null", "overlays.cases=1")
    run = train(run_config("r", *words, data_root=root)).directory
    # As a fit of post-processing leaves it.
    hashes = read_json(run.split)["content_hashes"]
    cases = [{"case_id": case, "group": "person_001", "content_hash": of} for case, of in hashes.items()]
    write_json(run.path / "postprocessing.json", {"models": [], "fitting_cases": cases})
    keys = {"mirror": True, "trainer": {"accelerator": "cpu"}}
    evaluate({"run": str(run.path), "subset": "test", "overlays": 2} | keys)

    ids = [f"{kind}_00{k}" for kind in ("phantom", "person") for k in range(9)]
    secrets = [*ids, str(root), str(run.path), str(tmp_path / "runs"), *hashes.values()]
    here = found_in(in_files(run.path), secrets)  # the folder is as ever: all cases, and the people that were scored
    assert {*ids[:9], str(root), *hashes.values()} <= here
    assert len(here & set(ids[9:])) >= 3
    assert found_in(in_tables(store), secrets) == set()
    artifacts = store.parent / "mlartifacts"
    assert found_in(in_files(artifacts), secrets) == set()
    names = {path.name for path in artifacts.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "plan.json", "split.json", "env.json", "per_case.csv", "curves.png", "summary.json"),
        *("comparison.json", "differences.csv", "postprocessing.json", "model.safetensors"),
    }
    (env,) = (read_json(path) for path in artifacts.rglob("env.json"))
    assert not {"host", "command"} & env.keys()
    assert socket.gethostname() not in json.dumps(env).split('"')
    # The numbers are there: those of the run's own tables, row by row, under names that are the same everywhere.
    assert found_in(in_tables(store), ["test/mirrored/dice", "selected/score"])
    sent = next(path for path in artifacts.rglob("test/per_case.csv"))
    own, there = (list(csv.DictReader(path.open())) for path in (run.path / "evaluation/test/per_case.csv", sent))
    assert [row["dice"] for row in there] == [row["dice"] for row in own]
    pseudonyms = {a["case_id"]: b["case_id"] for a, b in zip(own, there, strict=True)}
    assert all(re.fullmatch("anon-[0-9a-f]{12}", one) for one in pseudonyms.values())
    (split,) = (read_json(path) for path in artifacts.rglob("split.json"))
    assert split["test"] == [pseudonyms[case] for case in read_json(run.split)["test"]]
    config = yaml.safe_load(next(artifacts.rglob("config.yaml")).read_text())
    assert (config["data"]["root"], config["paths"]["cache"], config["privacy"]) == ("<path>", "<path>", "strict")
    assert config["trainer"]["steps_per_epoch"] == 3
    (copy,) = {row[0] for row in select(store, "SELECT run_uuid FROM runs")}
    told = params(store, copy)
    assert (told["data.root"], told["seed"]) == ("<path>", "0")
    assert "overrides" not in told
    assert tags(store, copy)["mlflow.note.content"].endswith("Run folder: `<path>`")
    assert tags(store, copy)["segkit.ended"] == "finished"
    # Again from the folder: nothing new, and the same pseudonyms.
    before = sorted(in_files(artifacts))
    mirror(run, store=store, experiment="segkit")
    assert sorted(in_files(artifacts)) == before


def strict_run(tmp_path, name="a", config=STRICT):
    run = RunDirectory(tmp_path / "runs" / name).create()
    run.save_config(config)
    write_json(run.split, {"train": ["7", "anna"], "content_hashes": {"7": "f" * 64}})
    return run


def sent(privacy, *files):
    """Name and content of the files that may go."""
    with privacy.files(list(files)) as found:
        return {name: path.read_text() for path, name in found}


def test_what_is_told_beside_the_files(tmp_path):
    run = strict_run(tmp_path)
    overrides = {"overrides": ["data.root=scans"], "data": {"root": "scans", "split": {"file": None}}}
    begin_life(
        run,
        STRICT | overrides | {"resume": "auto", "optimizer": {"lr": 0.1}},
        tags={"mlflow.note.content": "anna at /x/y"},
        data=[DataFacts("set", "0123", "/x/y", "training")],
    )
    privacy = privacy_of(run, SQLITE)
    facts = privacy.facts(load_facts(run))
    anna = privacy.text("anna")
    assert anna.startswith("anon-")
    expected = {"privacy": "strict", "data.root": "<path>", "data.split.file": "null", "paths.runs": "<path>"}
    assert facts.params == expected | {"seed": "3", "resume": "auto", "optimizer.lr": "0.1"}
    assert facts.tags == {"mlflow.note.content": f"{anna} at <path>"}
    assert facts.data == (DataFacts("set", "0123", "<path>", "training"),)
    assert privacy.reason("/x/y/anna.nii cannot be read") == ""
    assert privacy.override("data.root=a,b") == "data.root=<path>"
    assert privacy.override("data.split.fold=0,1") == "data.split.fold=0,1"


def test_records_and_tables(tmp_path):
    run = strict_run(tmp_path)
    privacy = privacy_of(run, SQLITE)
    table, record, half = run.per_case, run.path / "summary.json", run.path / "calibration.json"
    table.write_text("case_id,group,class,dice,n_reference\n7,p,liver,0.5,7\nnew,p,liver,,7\n")
    record.write_text(
        json.dumps({"seen_cases": ["7"], "n": 7, "by": {"anna": {"content_hash": "f"}}, "file": "/x y/z", "why": "n/a"})
    )
    half.write_text('{"cases": ["anna"')
    found = sent(privacy, (table, "t/per_case.csv"), (record, "summary.json"), (half, "calibration.json"))
    assert found.keys() == {"t/per_case.csv", "summary.json"}  # what cannot be understood stays
    rows = list(csv.DictReader(found["t/per_case.csv"].splitlines()))
    seven, person = rows[0]["case_id"], rows[0]["group"]
    assert [list(row.values())[2:] for row in rows] == [["liver", "0.5", "7"], ["liver", "", "7"]]
    assert rows[1]["case_id"].startswith("anon-")  # in no role: known by its column
    assert rows[1]["group"] == person
    anna = privacy.text("anna")
    assert json.loads(found["summary.json"]) == {
        "seen_cases": [seven], "n": 7, "by": {anna: {}}, "file": "<path>", "why": "n/a"
    }  # fmt: skip


def test_a_sweep_is_as_strict_as_its_strictest_run(tmp_path):
    sweep = SweepDirectory(tmp_path / "runs" / "cv")
    jobs = [strict_run(tmp_path, f"cv/{k}", config) for k, config in enumerate(({"privacy": "none"}, STRICT))]
    sweep.multirun.write_text("hydra: {}\n")
    privacy = privacy_of(sweep, SQLITE)
    assert isinstance(privacy, StrictPrivacy)
    assert privacy.text("anna") == privacy_of(jobs[1], SQLITE).text("anna") != "anna"
    assert not isinstance(privacy_of(jobs[0], SQLITE), StrictPrivacy)
    assert sent(privacy, (sweep.multirun, "multirun.yaml")) == {}


def test_a_damaged_configuration_does_not_open_a_strict_run(tmp_path):
    run = strict_run(tmp_path)
    begin_life(run, STRICT)
    run.config.write_text("{")
    assert isinstance(privacy_of(run, SQLITE), StrictPrivacy)


@pytest.mark.parametrize(
    ("uri", "pictures", "go"),
    [
        (SQLITE, "local", True),
        ("http://127.0.0.1:5000", "local", True),
        ("https://mlflow.example.org", "local", False),
        ("https://mlflow.example.org", None, False),  # a run from before there was the key
        ("https://mlflow.example.org", "always", True),
        ("postgresql://db.example.org/mlflow", "local", False),
    ],
)
def test_pictures_of_patients_leave_the_machine_on_request_only(tmp_path, uri, pictures, go):
    run = RunDirectory(tmp_path / "run").create()
    run.save_config({"tracking": {"name": "mlflow"} | ({"pictures": pictures} if pictures else {})})
    privacy = privacy_of(run, uri)
    assert type(privacy) is Privacy
    run.report.write_text("page")
    names = ("report.html", "overlays/a.png", "curves.png", "per_case.csv")
    found = sent(privacy, *((run.report, name) for name in names))
    assert set(found) == set(names if go else names[2:])
