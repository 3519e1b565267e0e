"""Recognising how a data set lies on disk: nnU-Net raw, or images beside labels. Opens no image.

nnU-Net raw: `imagesTr/ID_0000.nii.gz` (a file a channel), `labelsTr/ID.nii.gz`, `dataset.json`. The Medical
Segmentation Decathlon's own form, one file with all channels named `ID.nii.gz`, is read as well.
Paired: `images/ID.png` and `labels/ID.png` (or `masks/`), of any file type; `dataset.json` may stand beside them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from segkit.data import tables
from segkit.data.annotated import annotated_classes, with_annotated
from segkit.data.declaration import channel_names, declaration, file_ending, label_values, listed_cases
from segkit.data.groups import with_groups
from segkit.data.names import require_usable_ids, shown_id
from segkit.data.readers import ending_of, stem_of
from segkit.errors import DataError
from segkit.types import Case

Layout = Literal["nnunet", "paired"]

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask")
_LABEL_SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_seg", "-mask", "-label", "-seg")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
MAX_FILES = 500_000
"""Files in one folder; more of them are no data set but the wrong folder."""
_FLAT_PICTURES = frozenset({".png", ".bmp", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class Dataset:
    """What the names in a folder, its dataset.json and its groups.csv tell.

    Args:
        name: From dataset.json, else the folder's.
        root: Absolute path.
        layout: "nnunet" or "paired".
        channels: Names of the channels; () where names alone do not tell (a picture may be grey or RGB).
        cases: In the order of their ids.
        declared_labels: Class name to value in the files, as in dataset.json; None where nothing is declared.
        dimensions: 2 where every image is a flat picture; None where only the files can tell.
        orphans: Label files without an image.
        ignored: Files in the image and label folders that are no image segkit reads.
        annotated: Case id to the classes annotated there, as in dataset.json; every class in a case not named.
    """

    name: str
    root: Path
    layout: Layout
    channels: tuple[str, ...]
    cases: tuple[Case, ...]
    declared_labels: Mapping[str, int] | None
    dimensions: int | None = None
    orphans: tuple[Path, ...] = ()
    ignored: tuple[Path, ...] = ()
    annotated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def discover(
    root: str | Path, *, layout: Literal["auto"] | Layout = "auto", groups: str | Path | None = None
) -> Dataset:
    """Find the cases of a data set by the names of its files.

    Args:
        root: Folder of the data set.
        layout: How it is laid out; "auto" recognises it.
        groups: See `groups.with_groups`.

    Raises:
        DataError: No such folder, an empty one, one without images, or a malformed dataset.json or table of groups.
    """
    root = Path(root).expanduser().absolute()
    if not _is_folder(root):
        raise DataError(
            "the data set is not there",
            where=str(root),
            why="a file, not a folder" if root.exists() else "no such folder",
            mend="data.root=/path/to/the/folder",
        )
    kind = _recognise(root) if layout == "auto" else layout
    declared = declaration(root)
    channels = channel_names(declared, root)
    labels = label_values(declared, root)
    annotated = annotated_classes(declared, labels, root)
    if kind == "nnunet":
        image_folder, label_folder = root / "imagesTr", root / "labelsTr"
    else:
        image_folder, label_folder = _first(root, _IMAGE_FOLDERS), _first(root, _LABEL_FOLDERS)
    images, ignored_images = _listing(image_folder)
    masks, ignored_masks = _listing(label_folder)
    if ending := file_ending(declared, root):
        images = [path for path in images if path.name.endswith(ending)]
    if kind == "nnunet" and isinstance(declared.get("dataset"), dict):
        cases = listed_cases(root, declared["dataset"])
    else:
        cases = _paired(images, masks)
    if not cases:
        raise DataError(
            "there is no image in the data set",
            where=str(image_folder),
            why=f"{len(ignored_images)} other files" if ignored_images else "the folder is empty or missing",
            mend="put the images there (NIfTI, NRRD, MHA, PNG, TIFF, BMP or JPEG)",
        )
    require_usable_ids(cases)
    several = max(len(case.images) for case in cases)
    used = {case.label for case in cases}
    return Dataset(
        name=shown_id(str(declared.get("name") or root.name)),
        root=root,
        layout=kind,
        channels=channels or (tuple(f"channel_{k}" for k in range(several)) if several > 1 else ()),
        cases=with_annotated(with_groups(cases, groups, root=root), annotated),
        declared_labels=labels,
        dimensions=2 if all(ending_of(path) in _FLAT_PICTURES for case in cases for path in case.images) else None,
        orphans=tuple(path for path in masks if path not in used),
        ignored=(*ignored_images, *ignored_masks),
        annotated=annotated,
    )


def image_cases(folder: str | Path) -> tuple[Case, ...]:
    """The images in one folder as cases without labels, for prediction; files `ID_0000`, `ID_0001` are one case.

    A single image file may be named instead of a folder, or a table of images (`tables`).

    Raises:
        DataError: There is no image, or the table is malformed.
    """
    path = Path(folder).expanduser().absolute()
    if path.is_file():
        if path.suffix.lower() == tables.ENDING:
            return tables.table_cases(path)
        return (Case(stem_of(path), (path,), None, stem_of(path)),)
    cases = _paired(_listing(path)[0], ())
    require_usable_ids(cases)
    if not cases:
        raise DataError(
            "there is no image to predict",
            where=str(path),
            why="the folder has no image that segkit reads" if path.is_dir() else "no such folder",
            mend="input=/path/to/images",
        )
    return tuple(cases)


def _recognise(root: Path) -> Layout:
    if (root / "imagesTr").is_dir():
        return "nnunet"
    if any((root / name).is_dir() for name in _IMAGE_FOLDERS):
        return "paired"
    inside = sorted(path.name for path in root.iterdir())
    if not inside:
        raise DataError("the data set is an empty folder", where=str(root), mend="data.root=/path/to/the/folder")
    raise DataError(
        "the layout of the data set is not recognised",
        where=str(root),
        why=f"it holds {', '.join(inside[:5])}{' ...' if len(inside) > 5 else ''}",
        mend="lay it out as imagesTr/ labelsTr/ dataset.json, or as images/ labels/ with equal names",
    )


def _first(root: Path, names: Sequence[str]) -> Path:
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def _listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """Image files and other files of a folder, sorted; hidden files are nobody's."""
    if not folder.is_dir():
        return [], []
    inside = list(islice(folder.iterdir(), MAX_FILES + 1))
    if len(inside) > MAX_FILES:
        raise DataError(
            "the folder holds more files than segkit reads",
            where=str(folder),
            why=f"more than {MAX_FILES}",
            mend="make several data sets of it; was it the right folder?",
        )
    entries = sorted(path for path in inside if not path.name.startswith(".") and not path.is_dir())
    images = [path for path in entries if ending_of(path)]
    # The second halves of .hdr and .mhd pairs belong to an image; they are not left over.
    companions = (".img", ".raw", ".zraw", ".img.gz")
    others = [path for path in entries if not ending_of(path) and not path.name.lower().endswith(companions)]
    return images, others


def _paired(images: Iterable[Path], masks: Iterable[Path]) -> list[Case]:
    """Images and labels of one name; files `ID_0000`, `ID_0001` are the channels of `ID`."""
    by_stem: dict[str, Path] = {}
    for path in masks:
        by_stem.setdefault(stem_of(path), path)
    images = list(images)
    stems = {stem_of(path) for path in images}
    channels: dict[tuple[str, str], list[Path]] = {}
    for path in images:
        stem = stem_of(path)
        match = _CHANNEL.fullmatch(stem)
        # `scan_0001` with a label `scan_0001` is a case of that name. Without any label to ask, it is a channel only
        # where a first one, `scan_0000`, is there.
        if match and stem not in by_stem and (match[1] in by_stem or f"{match[1]}_0000" in stems):
            channels.setdefault((match[1], ending_of(path) or ""), []).append(path)
        else:
            channels[stem, str(path)] = [path]
    cases = []
    for (case_id, _), files in sorted(channels.items()):
        label = next((by_stem[case_id + end] for end in _LABEL_SUFFIXES if case_id + end in by_stem), None)
        cases.append(Case(case_id, tuple(sorted(files)), label, case_id))
    return cases


def _is_folder(root: Path) -> bool:
    try:
        return root.is_dir()
    except (OSError, ValueError):  # no permission on the way there; a NUL in the name
        return False
