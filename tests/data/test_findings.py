import pytest

from segkit.data.findings import Finding, counts, describe, raise_if_errors
from segkit.errors import DataError


def test_only_errors_stop_and_all_of_them_are_told():
    warning = Finding("warning", "a", "", "odd")
    raise_if_errors([warning])
    one = Finding("error", "a", "/a.png", "broken", "why", "mend")
    with pytest.raises(DataError) as caught:
        raise_if_errors([warning, one])
    error = caught.value
    assert (error.what, error.where, error.why, error.mend) == ("broken", "case a, /a.png", "why", "mend")
    with pytest.raises(DataError, match="2 errors") as caught:
        raise_if_errors([one, Finding("error", "b", "/b.png", "empty")])
    assert "/a.png" in str(caught.value)
    assert "/b.png" in str(caught.value)


def test_many_alike_are_counted_and_errors_come_first():
    findings = [Finding("note", "", "", "remark")] + [Finding("error", f"c{k}", "", "broken") for k in range(10)]
    text = describe(findings)
    assert text.index("error") < text.index("note")
    assert "c2" in text
    assert "error: broken: 7 more cases: c3, c4, c5, c6, c7, c8, c9" in text  # each has to be mended
    assert counts(findings) == "10 errors, 0 warnings, 1 note"


def test_of_many_warnings_alike_the_rest_is_only_counted():
    text = describe([Finding("warning", f"c{k}", "", "odd") for k in range(10)])
    assert text.splitlines()[-1] == "warning: odd: 7 more cases"


def test_an_error_of_a_reader_as_a_finding():
    error = DataError("what", where="somewhere", why="why", mend="mend")
    assert Finding.of(error, case="a", file="/a") == Finding("error", "a", "/a", "what", "why", "mend")
    assert Finding.of(error).file == "somewhere"
