from segkit.reporting.html import folded, heading, page, paragraph, picture, section, table

HOSTILE = '<script src="http://example.org/x.js">&"'


def test_nothing_from_outside_becomes_markup():
    built = [heading(HOSTILE), paragraph(HOSTILE), section(HOSTILE, "x"), table([HOSTILE], [[HOSTILE]])]
    built += [folded(HOSTILE, HOSTILE), picture(b"", caption=HOSTILE), page(HOSTILE, [])]
    for text in built:
        assert "<script" not in text
        assert "&lt;script" in text


def test_parts_without_content_leave_no_trace():
    assert section("Title", "", "") == ""
    assert table(["a"], []) == ""
    assert folded("a", "  ") == ""


def test_numbers_are_set_as_numbers_from_the_column_on():
    assert table(["a", "b"], [["x", "1"]], numbers_from=1).count('<td class="number">') == 1
    assert table(["a", "b"], [["x", "1"]], numbers_from=1).count('<th class="number">b</th>') == 1
