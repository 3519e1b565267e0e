import csv

import pytest

from segkit.data.labels import infer_labels
from segkit.data.layouts import discover
from segkit.data.sample import sample_root
from segkit.errors import UsageError


def test_forty_hippocampi_of_forty_people():
    dataset = discover(sample_root())
    assert dataset.layout == "nnunet"
    assert len(dataset.cases) == 40
    assert len({case.group for case in dataset.cases}) == 40
    assert all(case.label is not None for case in dataset.cases)
    assert infer_labels(dataset, ()).names == ("background", "Anterior", "Posterior")
    # Nobody's other side came along: ids 2k-1 and 2k belong to one person.
    assert len({(int(case.case_id[-3:]) + 1) // 2 for case in dataset.cases}) == 40
    with (dataset.root / "groups.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 40


def test_sixty_pictures_of_nuclei_with_instances():
    dataset = discover(sample_root("nuclei"))
    assert len(dataset.cases) == 60
    assert dataset.dimensions == 2
    assert infer_labels(dataset, dataset.cases).kind == "instances"


def test_the_samples_are_small_and_attributed():
    roots = [sample_root(), sample_root("nuclei")]
    size = sum(path.stat().st_size for root in roots for path in root.rglob("*") if path.is_file())
    assert size < 15e6
    for root, licence in zip(roots, ("CC-BY-SA 4.0", "CC0"), strict=True):
        text = (root / "ATTRIBUTION.md").read_text()
        assert licence in text
        assert "https://doi.org/" in text
        assert "What was changed" in text


def test_an_unknown_sample_is_a_usage_error():
    with pytest.raises(UsageError, match="brain"):
        sample_root("brain")
