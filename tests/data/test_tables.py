import pytest

from segkit.data.layouts import image_cases
from segkit.data.tables import table_cases
from segkit.errors import DataError


def table(root, text):
    path = root / "images.csv"
    path.write_text(text)
    return path


def test_a_line_a_case_and_a_column_a_channel(tmp_path):
    path = table(tmp_path, "case,t1,t2\nzoe, scans/z1.nii.gz,scans/z2.nii.gz\n\nanna,/data/a1.nii.gz,a2.nii.gz\n")
    zoe, anna = table_cases(path)
    assert (zoe.case_id, zoe.group, zoe.label) == ("zoe", "zoe", None)
    assert [str(image.relative_to(tmp_path)) for image in zoe.images] == ["scans/z1.nii.gz", "scans/z2.nii.gz"]
    assert anna.images[0].as_posix() == "/data/a1.nii.gz"
    assert anna.images[1] == tmp_path / "a2.nii.gz"
    assert image_cases(path) == (zoe, anna)


def test_a_byte_order_mark_and_quotes(tmp_path):
    (case,) = table_cases(table(tmp_path, '\ufeffcase,image\n"a.1","x, y.png"\n'))
    assert (case.case_id, case.images[0].name) == ("a.1", "x, y.png")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no head"),
        ("id,image\na,b.png\n", "no head"),
        ("case\na\n", "no head"),
        ("case,image\n", "no case"),
        ("case,t1,t2\na,1.nii.gz\n", "not whole"),
        ("case,t1,t2\na,1.nii.gz,\n", "not whole"),
        ("case,image\na,b.png\na,c.png\n", "twice"),
        ("case,image\n../a,b.png\n", "name of a file"),
        ('case,image\na,"b.png\n', "cannot be read"),
    ],
)
def test_what_is_wrong_with_it_is_named(tmp_path, text, what):
    with pytest.raises(DataError, match=what) as raised:
        table_cases(table(tmp_path, text))
    assert raised.value.mend


def test_a_table_that_is_no_text(tmp_path):
    path = tmp_path / "images.csv"
    path.write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(DataError, match="cannot be read"):
        table_cases(path)
    with pytest.raises(DataError, match="cannot be read"):
        table_cases(tmp_path)
