"""A tile shows the fullest slice and counts volumes; the page shows every tile and loads nothing."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from segkit.reporting.contact_sheet import Tile, draw_tile, sheet_page, volume_text
from segkit.types import Labels

LABELS = Labels(("background", "organ", "tumour <b>"), (0, 1, 2))
NAMED = {"case_id": "a", "mask": "a.nii.gz", "labels": LABELS}


def a_tile(**changes):
    facts = {"case_id": "a", "mask": "a.nii.gz", "picture": b"png", "plane": "slice 1 of 2", "unit": "mL"}
    return Tile(**(facts | {"volumes": {"organ": 1.5, "tumour <b>": 0.0}} | changes))


def test_volumes_are_voxels_times_their_size():
    prediction = np.zeros((4, 5, 6), dtype=np.int16)
    prediction[:2, :3, 1], prediction[0, 0, 4] = 1, 2
    tile = draw_tile(np.ones((1, 4, 5, 6)), prediction, spacing=(2.0, 3.0, 5.0), unit="mm", **NAMED)
    assert tile.volumes == pytest.approx({"organ": 6 * 30 / 1000, "tumour <b>": 30 / 1000})
    assert tile.unit == "mL"


@pytest.mark.parametrize(
    ("shape", "spacing", "unit", "expected", "name"),
    [
        ((4, 5), (1.0, 1.0), "pixel", 20.0, "pixels"),
        ((4, 5), (0.5, 0.5), "mm", 5.0, "mm²"),
        ((4, 5, 2), (1.0, 1.0, 1.0), "pixel", 40.0, "voxels"),
    ],
)
def test_units(shape, spacing, unit, expected, name):
    tile = draw_tile(np.ones((1, *shape)), np.ones(shape, dtype=np.int16), spacing=spacing, unit=unit, **NAMED)
    assert (tile.volumes["organ"], tile.unit) == (expected, name)


def test_the_fullest_slice_counts_classes_by_their_share():
    prediction = np.zeros((10, 10, 4), dtype=np.int16)
    prediction[:, :, 1] = 1  # half of the organ
    prediction[:, :9, 2] = 1
    prediction[0, 9, 2] = 2  # the whole tumour
    tile = draw_tile(np.ones((1, 10, 10, 4)), prediction, spacing=(1.0, 1.0, 1.0), unit="mm", **NAMED)
    assert tile.plane == "slice 3 of 4"


def test_colour_pictures_keep_their_colours():
    image = np.zeros((3, 6, 6), dtype=np.uint8)
    image[0] = 200
    tile = draw_tile(image, np.zeros((6, 6), dtype=np.int16), spacing=(1.0, 1.0), unit="pixel", **NAMED)
    with Image.open(io.BytesIO(tile.picture)) as picture:
        assert picture.getpixel((3, 3)) == (200, 0, 0)


def test_a_tile_is_stored_and_read_back():
    assert Tile.from_json(json.loads(json.dumps(a_tile().to_json()))) == a_tile()


@pytest.mark.parametrize("change", [{"volumes": 3}, {"picture": "*"}, {"case_id": None, "mask": None, "volumes": None}])
def test_what_is_no_tile_is_refused(change):
    with pytest.raises(ValueError, match="tile"):
        Tile.from_json(a_tile().to_json() | change)
    with pytest.raises(ValueError, match="tile"):
        Tile.from_json({})


def test_the_page_shows_each_mask_and_loads_nothing():
    tiles = [a_tile(), a_tile(case_id="b <i>", volumes={"organ": 4.5, "tumour <b>": 0.25}), a_tile(case_id="c")]
    text = sheet_page("masks", tiles, LABELS, notes=["a note"])
    loaded = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert loaded == [f"data:image/png;base64,{base64.b64encode(b'png').decode()}"] * 3
    assert "<i>" not in text
    organ, tumour = (re.findall(r"<td[^>]*>(.*?)</td>", row)[1:] for row in text.split("<tr>")[2:])
    assert organ == ["organ", "1.50 mL", "1.50 mL", "4.50 mL", "0 of 3"]
    assert tumour == ["tumour &lt;b&gt;", "0.250 mL", "0.250 mL", "0.250 mL", "2 of 3"]
    assert text.count("tumour &lt;b&gt;: none") == 2
    assert "a note" in text


def test_volumes_as_text():
    assert volume_text(1234.5678, "mL") == "1235 mL"
    assert volume_text(0.123456, "mL") == "0.123 mL"
    assert volume_text(1.9, "mL") == "1.90 mL"
    assert volume_text(123.4, "mL") == "123 mL"
    assert volume_text(1234.5678, "pixels") == "1235 pixels"
