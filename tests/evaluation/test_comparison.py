import numpy as np
import pytest
from tests.evaluation_tables import write_tables

from segkit.errors import UsageError
from segkit.evaluation.comparison import ALPHA, Row, compare
from segkit.evaluation.stored_table import read_table
from segkit.metrics.paired_comparison import Difference, holm, paired_difference
from segkit.metrics.uncertainty import Interval

NAN = float("nan")


def values(seed, n, gain=0.0, spread=0.03):
    """Dice in thousandths, by case and class."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).uniform(0.5, 0.8, (n, 2))
    return np.round(shared + gain + rng.normal(0, spread, (n, 2)), 3)


@pytest.fixture
def make(tmp_path):
    """Factory: the table of an evaluation of cases c000, c001, ..."""

    def table(name, dice, **keys):
        named = {f"c{k:03d}": tuple(row) for k, row in enumerate(np.asarray(dice).tolist())}
        return read_table(write_tables(tmp_path / name, named, **keys))

    return table


def row(*, mean=0.0, half=0.1, p=0.5, n_groups=30, better="higher", infinite=(0.0, 0.0)):
    interval = Interval(mean, mean - half, mean + half, n_groups, n_groups)
    return Row("dice", "front", better, Difference(0.5, 0.5 + mean, interval, 1, 1, p), p, infinite)


def test_rows_are_the_paired_differences_and_the_family_is_all_of_them(make):
    a, b = values(0, 25), values(1, 25, gain=0.05)
    found = compare([make("a", a)], [make("b", b)], ["dice", "recall"], label="test")
    assert [r.name for r in found.rows] == [f"{m} {c}" for m in ("dice", "recall") for c in ("front", "back", "mean")]
    groups = [f"c{k:03d}" for k in range(25)]
    columns = [[0], [1], [0, 1]]
    expected = [paired_difference(a[None][:, :, c], b[None][:, :, c], groups) for c in columns]
    for found_row, difference in zip(found.rows[:3], expected, strict=True):
        assert np.hstack(found_row.difference) == pytest.approx(np.hstack(difference))
    assert found.family == tuple(r.name for r in found.rows)
    # Recall is Dice where reference and prediction have one size, as in these tables.
    assert [r.p_holm for r in found.rows] == pytest.approx(holm([d.p for d in expected] * 2))
    assert found.scope == "models"


def test_means_are_those_of_the_summaries(make):
    a, b = make("a", values(2, 12)), make("b", values(3, 12))
    found = compare([a], [b], ["dice"], label="test")
    for name, one in zip(("front", "back"), found.rows, strict=False):
        assert one.difference.reference == pytest.approx(a.facts["classes"][name]["dice"]["mean"])
        assert one.difference.candidate == pytest.approx(b.facts["classes"][name]["dice"]["mean"])
    assert found.rows[2].difference.reference == pytest.approx(a.facts["mean"]["dice"]["mean"])


def test_the_order_of_classes_and_cases_in_the_files_does_not_matter(make):
    a, b = values(4, 12), values(5, 12)
    straight = compare([make("a", a)], [make("b", b)], ["dice"], label="test")
    turned = make("c", b[:, ::-1], classes=("back", "front"))
    other = compare([straight.reference[0]], [turned], ["dice"], label="test")
    assert [r.difference for r in other.rows[:2]] == [r.difference for r in straight.rows[:2]]


def test_sides_change_places_with_the_sign_and_the_winner(make):
    a, b = make("a", values(6, 25)), make("b", values(7, 25, gain=0.1))
    there, back = compare([a], [b], ["dice"], label="test"), compare([b], [a], ["dice"], label="test")
    assert {r.verdict for r in there.rows} == {"candidate better"}
    assert {r.verdict for r in back.rows} == {"reference better"}
    assert [r.p_holm for r in there.rows] == pytest.approx([r.p_holm for r in back.rows])


def test_a_class_that_is_in_few_references(make):
    """Not tested, not in the family; the mean over the classes is."""
    a, b = values(8, 25), values(9, 25)
    a[5:, 1] = b[5:, 1] = NAN
    found = compare([make("a", a)], [make("b", b)], ["dice"], label="test")
    assert found.family == ("dice front", "dice mean")
    assert found.rows[1].verdict == "too few groups"
    assert found.rows[1].difference.interval.n == 5
    assert any("5 of 25" in line for line in found.table())


def test_p_values_are_published_from_twenty_groups_on(make):
    for n, published in ((19, False), (20, True)):
        found = compare([make(f"a{n}", values(10, n))], [make(f"b{n}", values(11, n))], ["dice"], label="test")
        stored = found.to_dict()
        assert len(found.family) == 3
        assert [r["p_holm"] is not None for r in stored["rows"]] == [published] * 3
        assert any("no p-value below 20" in line for line in found.table()) != published


def test_below_six_groups_there_is_neither_interval_nor_test(make):
    people = {f"c{k:03d}": f"p{k % 5}" for k in range(20)}
    found = compare(
        [make("a", values(12, 20), people=people)],
        [make("b", values(13, 20, gain=0.2), people=people)],
        ["dice"],
        label="test",
    )
    assert found.family == ()
    assert {r.verdict for r in found.rows} == {"too few groups"}
    assert all(r["interval"] is None and r["p_holm"] is None for r in found.to_dict()["rows"])
    assert "no interval and no test below 6 groups; there are 5" in list(found.table())


def test_six_groups_cannot_show_a_difference_in_three_tests_and_the_table_says_so(make):
    found = compare([make("a", values(14, 6))], [make("b", values(15, 6, gain=0.2))], ["dice"], label="test")
    assert {r.verdict for r in found.rows} == {"no difference shown"}
    assert "6 groups cannot show a difference in 3 tests: p >= 0.094" in list(found.table())


@pytest.mark.parametrize(("seeds", "scope"), [((1, 1), "models"), ((2, 3), "models"), ((3, 3), "methods")])
def test_what_is_said_follows_the_number_of_seeds(make, seeds, scope):
    sides = [[make(f"{side}{s}", values(20 + s, 8)) for s in range(n)] for side, n in zip("ab", seeds, strict=True)]
    found = compare(*sides, ["dice"], label="test")
    assert found.scope == scope
    assert ("these two methods" in found.statement) == (scope == "methods")
    assert ("nothing is said of the methods" in found.statement) == (scope == "models")
    assert ("two models" in found.statement) == (seeds == (1, 1))
    seeds_meant = np.mean([values(20 + s, 8) for s in range(seeds[0])], axis=0)
    assert found.cases[1].reference == pytest.approx(seeds_meant[0, 1])


@pytest.mark.parametrize(
    ("one", "verdict", "words"),
    [
        (row(mean=0.2, p=0.01), "candidate better", "the candidate is better by 0.2000"),
        (row(mean=-0.2, p=0.01), "reference better", "the reference is better by 0.2000"),
        (row(mean=-0.2, p=0.01, better="lower"), "candidate better", "the candidate is better by 0.2000"),
        (row(mean=0.05, p=0.01), "no difference shown", "95 % interval -0.0500 to +0.1500"),
        (row(mean=0.2, p=ALPHA), "no difference shown", "leaves out 0, the test does not reject"),
        (row(mean=0.2, p=0.01, n_groups=5), "too few groups", "5 groups are too few"),
        (row(mean=-0.2, p=0.01, better="lower", infinite=(0.0, 2.0)), "not judged", "0 cases of the reference and 2"),
        (row(mean=-0.2, p=0.01, better="lower", infinite=(2.0, 0.0)), "candidate better", "by 0.2000"),
        (row(mean=0.2, p=0.01, better="lower", infinite=(2.0, 1.0)), "not judged", "2 cases of the reference"),
    ],
)
def test_verdicts(one, verdict, words):
    assert one.verdict == verdict
    assert words in one.sentence


def test_missed_structures_do_not_win_by_their_distance(make):
    """Infinite on one side: in no mean, counted, and no verdict for the side that misses more."""
    tables = [make(name, values(30, 25)) for name in ("a", "b")]
    distances = {"a": [5.0] * 25, "b": [3.0 + 0.01 * k for k in range(24)] + [float("inf")]}
    for table in tables:
        header, *lines = (table.folder / "per_case.csv").read_text().splitlines()
        wider = [f"{line},{distances[table.folder.name][k // 2]}" for k, line in enumerate(lines)]
        (table.folder / "per_case.csv").write_text("\n".join([header + ",hd95", *wider]) + "\n")
    found = compare(*[[read_table(table.folder)] for table in tables], ["hd95"], label="test")
    assert {r.difference.interval.n for r in found.rows} == {24}
    assert {r.infinite for r in found.rows} == {(0.0, 1.0)}
    assert {r.verdict for r in found.rows} == {"not judged"}
    assert all(r.p_holm < ALPHA for r in found.rows)


@pytest.mark.parametrize("metrics", [["tp"], ["dise"], [], ["dice", "dice"]])
def test_metrics_of_unknown_direction_none_and_twice_are_refused(make, metrics):
    with pytest.raises(UsageError, match="which way is better"):
        compare([make("a", values(0, 6))], [make("b", values(1, 6))], metrics, label="test")
