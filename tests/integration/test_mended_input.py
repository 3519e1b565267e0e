"""A start that failed leaves nothing that is in the way of the next one."""

import json

from segkit.configuration import main


def test_the_same_command_trains_once_the_file_is_mended(nnunet_raw, tmp_path, capsys):
    root, runs = nnunet_raw(cases=8), tmp_path / "runs"
    words = ["debug=fast", f"data.root={root}", f"paths.runs={runs}", "run_name=r", "trainer.max_epochs=1"]
    words += ["trainer.threads=1"]
    labels = sorted((root / "labelsTr").glob("*.nii.gz"))
    whole = {path: path.read_bytes() for path in labels}
    for path in labels:
        path.write_bytes(whole[path][:100])
    assert main("train", words) == 65
    err = capsys.readouterr().err
    assert (
        sum(path.name.removesuffix(".nii.gz") in err for path in labels) == 5
    )  # all of training and tuning at once, not the first
    left = {path.name for path in (runs / "r").rglob("*") if path.is_file()}
    assert left <= {"run.lock", "run.json", "log.txt"}
    assert not [path for path in (runs / ".prepared").rglob("*") if path.name == "meta.json"]
    for path, contents in whole.items():
        path.write_bytes(contents)
    assert main("train", words) == 0
    assert json.loads((runs / "r/STATUS.json").read_text())["state"] == "finished"
