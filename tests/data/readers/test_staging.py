import contextlib

from segkit.data.readers.staging import staged


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "mask.png"
    target.write_text("old")
    with contextlib.suppress(RuntimeError), staged(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
    with staged(target) as temporary:
        temporary.write_text("new")
        temporary.with_suffix(".raw").write_text("voxels")
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.png", "mask.raw"]
