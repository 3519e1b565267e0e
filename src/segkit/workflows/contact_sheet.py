"""The contact sheet of what `predict` writes: a tile a mask while both are in memory, and a page of them in the end.

Tiles are kept in the folder contact_sheet beside the masks, so that a prediction that is gone on with, or a folder that
gets more masks, has all of them on its page without reading an image twice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from segkit.data.cases import integer_values
from segkit.data.geometry import canonical
from segkit.data.labels import to_class_indices
from segkit.data.readers import read
from segkit.errors import DataError
from segkit.reporting.contact_sheet import Tile, draw_tile, sheet_page
from segkit.runs.files import atomic_write, read_json, write_json
from segkit.types import Case, Labels, Volume
from segkit.workflows.loading import TrainedRun

PAGE, TILES = "contact_sheet.html", "contact_sheet"
_MOST = 1000
"""Pictures of one command: a page of more is slow to open, and nobody looks at it."""


class ContactSheet:
    """Draws tiles and, in the end, their page.

    Args:
        output: Folder of the masks.
        cases: What is predicted, and the mask of each; of very many, every so many-th is drawn.
        labels: Class names.
        name: What the page is called: the runs, and not the folder, which may be moved.
    """

    def __init__(self, output: Path, cases: Mapping[Path, Case], labels: Labels, *, name: str) -> None:
        self._output, self._labels, self._name = output, labels, name
        every = math.ceil(len(cases) / _MOST) or 1
        self._drawn = dict(list(cases.items())[::every])
        self._note = "" if every == 1 else f"One of {every} masks is drawn, {len(self._drawn)} of {len(cases)}."

    def draw(self, mask: Path, image: Volume, prediction: Int[np.ndarray, "..."]) -> None:
        """Keep the tile of a mask.

        Args:
            mask: Its file, which need not be there yet.
            image: As read.
            prediction: Class indices in RAS+ order.
        """
        if (case := self._drawn.get(mask)) is None:
            return
        array, geometry = canonical(image)
        tile = draw_tile(
            array,
            prediction,
            case_id=case.case_id,
            mask=mask.name,
            spacing=geometry.native_spacing,
            labels=self._labels,
            unit=geometry.unit,
        )
        path = self._tile(mask)
        path.parent.mkdir(exist_ok=True)
        write_json(path, tile.to_json())

    def finish(self, faults: Sequence[tuple[str, DataError]]) -> Path:
        """Write the page of all masks in the folder that have a tile; those kept from before get one now.

        Args:
            faults: Cases that could not be predicted, and why.
        """
        notes = [self._note] if self._note else []
        notes += [f"Not predicted: {case_id}, {error.what}." for case_id, error in faults]
        for mask, case in self._drawn.items():
            if mask.exists() and _read(self._tile(mask)) is None:
                try:
                    self._draw_again(mask, case)
                except DataError as error:
                    notes.append(f"Not drawn: {case.case_id}, {error.what}.")
        page = self._output / PAGE
        atomic_write(page, sheet_page(self._name, self._stored(), self._labels, notes=notes))
        return page

    def _draw_again(self, mask: Path, case: Case) -> None:
        """A tile from the files."""
        image = read(case.images[0], role="image", case=case.case_id)
        volume = read(mask, role="label", case=case.case_id)
        values = to_class_indices(integer_values(volume, case=case.case_id), self._labels, where=str(mask))
        self.draw(mask, image, canonical(replace(volume, array=values[None]))[0][0])

    def _stored(self) -> list[Tile]:
        """The tiles of the masks that are there, by case."""
        tiles = [_read(path) for path in (self._output / TILES).glob("*.json")]
        there = [tile for tile in tiles if tile is not None and (self._output / tile.mask).is_file()]
        return sorted(there, key=lambda tile: tile.case_id)

    def _tile(self, mask: Path) -> Path:
        return self._output / TILES / f"{mask.name}.json"


def contact_sheet(
    config: Mapping[str, Any], output: Path, cases: Mapping[Path, Case], members: Sequence[TrainedRun]
) -> ContactSheet | None:
    """The contact sheet of a prediction by these runs, if it is to have one.

    Tiles of masks that are about to be replaced go first, and so does a page that would no longer show its folder.
    """
    wanted = config.get("contact_sheet", False)
    if not wanted or config.get("overwrite", False):
        _forget(output)
    name = " + ".join(member.directory.name for member in members)
    return ContactSheet(output, cases, members[0].plan.labels, name=name) if wanted else None


def _forget(output: Path) -> None:
    """Take away the page and its tiles; what else lies beside them stays."""
    tiles = output / TILES
    for path in (output / PAGE, *tiles.glob("*.json")):
        path.unlink(missing_ok=True)
    if tiles.is_dir() and not any(tiles.iterdir()):
        tiles.rmdir()


def _read(path: Path) -> Tile | None:
    """A tile that was kept; None where there is none, or a damaged one."""
    try:
        return Tile.from_json(read_json(path))
    except (OSError, ValueError):
        return None
