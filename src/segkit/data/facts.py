"""What a check keeps of one case after it has read it: a few numbers, never the voxels."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from segkit.data.cases import geometry_mismatch, read_image, read_label
from segkit.data.findings import Finding
from segkit.data.labels import distinct
from segkit.data.readers import notes
from segkit.errors import DataError
from segkit.types import Case, Size, Volume


@dataclass(frozen=True)
class CaseFacts:
    """What one case looks like.

    Args:
        case: The case.
        findings: Faults of its own files.
        shape: Spatial size of the image; None where it cannot be read.
        channels: Number of channels; 0 where it cannot be read.
        stacked: All channels lie in one file with a physical frame: a fourth axis.
        median: Median of the first channel where it is not 0; its intensity scale.
        digest: Of the image's voxels and size; equal for equal images whatever their packing.
        values: Distinct values of the label, None where there is none to read.
    """

    case: Case
    findings: tuple[Finding, ...]
    shape: Size | None = None
    channels: int = 0
    stacked: bool = False
    median: float = float("nan")
    digest: str = ""
    values: tuple[int, ...] | None = None


def facts_of(case: Case) -> CaseFacts:
    """Read a case and note everything that is wrong with it; both image and label are tried."""
    findings: list[Finding] = []
    image: Volume | None = None
    try:
        image = read_image(case)
    except DataError as error:
        findings.append(Finding.of(error, case=case.case_id, file=_file(error, case)))
    values: tuple[int, ...] | None = None
    if case.label is None:
        findings.append(
            Finding(
                "error",
                case.case_id,
                str(case.images[0]),
                "the image has no label",
                "no file of the same name in the folder of the labels",
                "add the label, or take the image out",
            )
        )
    else:
        try:
            ids, label = read_label(case)
            values = tuple(distinct(ids))
            if image is not None and (mismatch := geometry_mismatch(image, label)):
                findings.append(
                    Finding(
                        "error",
                        case.case_id,
                        str(case.label),
                        "image and label do not lie on one grid",
                        f"the label has {mismatch} of the image",
                        "resample the label onto the image by nearest neighbour; copy the header if only that is wrong",
                    )
                )
        except DataError as error:
            findings.append(Finding.of(error, case=case.case_id, file=str(case.label)))
    if image is None:
        return CaseFacts(case, tuple(findings), values=values)
    findings += [Finding("warning", case.case_id, str(path), note) for path in case.images for note in notes(path)]
    findings += _constant(image, case)
    inside = image.array[0][image.array[0] != 0]
    return CaseFacts(
        case=case,
        findings=tuple(findings),
        shape=image.spatial_shape,
        channels=image.array.shape[0],
        stacked=len(case.images) == 1 and image.array.shape[0] > 1 and image.unit == "mm",
        median=float(np.median(inside)) if inside.size else 0.0,
        digest=_digest(image.array),
        values=values,
    )


def _constant(image: Volume, case: Case) -> list[Finding]:
    flat = [channel for channel, voxels in enumerate(image.array) if voxels.min() == voxels.max()]
    return [
        Finding(
            "warning",
            case.case_id,
            str(case.images[channel] if len(case.images) == len(image.array) else case.images[0]),
            "the image is constant",
            f"every voxel of channel {channel} is {image.array[channel].flat[0]}",
            "look at the file: it was probably exported empty",
        )
        for channel in flat
    ]


def _digest(array: Shaped[np.ndarray, "C *S"]) -> str:
    digest = hashlib.blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _file(error: DataError, case: Case) -> str:
    """The file an error of a reader speaks of, out of the case's."""
    return next((str(path) for path in case.images if str(path) in error.where), str(case.images[0]))
