"""What `prepare` makes and says."""

from segkit.workflows import prepare as workflow


def test_cases_are_prepared_and_found_again(paired_pictures, tmp_path, capsys):
    config = {
        "data": {
            "root": str(paired_pictures(cases=8, mode="RGB", kind="mask")),
            "name": None,
            "layout": "auto",
            "labels": "auto",
            "groups": None,
            "ignore_label": None,
            "laterality": "auto",
            "max_cases": None,
            "split": {"folds": 4, "fold": 1, "tuning": 0.15, "seed": 1, "file": None},
        },
        "plan": {"name": "tiny"},
        "trainer": {"accelerator": "cpu"},
        "paths": {"cache": str(tmp_path / "cache")},
    }
    prepared = workflow.run(config)
    assert (len(prepared.train), len(prepared.tuning), len(prepared.roles.test)) == (5, 1, 2)
    assert "5 training and 1 tuning cases prepared" in capsys.readouterr().out
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "cases").rglob("*")}
    assert workflow.run(config) == prepared
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "cases").rglob("*")} == stamps
