"""A table of images: a line a case, its id first, then a file a channel.

    case,t1,t2
    anna,scans/anna-t1.nii.gz,scans/anna-t2.nii.gz

Paths are relative to the table's folder, or absolute. The columns behind the first are channels, in the order in which
the model was given them.
"""

import csv
import io
from pathlib import Path

from segkit.data.names import require_usable_ids, shown_id, twice
from segkit.errors import DataError
from segkit.runs.untrusted import read_regular
from segkit.types import Case

ENDING = ".csv"
MAX_BYTES = 2**26
"""A line each for a million cases."""
_NAMED = 5


def table_cases(path: Path) -> tuple[Case, ...]:
    """The images of a table as cases without labels, in its order; no image is opened.

    Raises:
        DataError: The table cannot be read, names no case, one twice, or leaves a channel out.
    """
    try:
        text = read_regular(path, limit=MAX_BYTES).decode("utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            "the table of images cannot be read",
            where=str(path),
            why=str(error),
            mend="save it as plain text: CSV in UTF-8 with a column for the case and one a channel",
        ) from error
    columns, *lines = rows or [[]]
    if len(columns) < 2 or columns[0] != "case" or not lines:
        raise DataError(
            "the table of images has no case" if len(columns) > 1 and not lines else "the table of images has no head",
            where=str(path),
            why=f"its first line is '{','.join(columns)}'" if columns else "it is empty",
            mend="let its first line be 'case,' and the names of the channels, and each other line a case",
        )
    wrong = [row for row in lines if len(row) != len(columns) or not all(row)]
    if wrong:
        raise DataError(
            "lines of the table of images are not whole",
            where=str(path),
            why=f"{len(wrong)} lines without {len(columns)} entries, such as "
            + "; ".join(shown_id(",".join(row)) for row in wrong[:_NAMED]),
            mend="name a file for each channel of each case",
        )
    if repeated := twice(row[0] for row in lines):
        raise DataError(
            "a case is in the table of images twice",
            where=str(path),
            why=", ".join(map(shown_id, repeated[:_NAMED])),
            mend="keep one line a case",
        )
    cases = tuple(
        Case(case_id, tuple(path.parent / Path(file).expanduser() for file in files), None, case_id)
        for case_id, *files in lines
    )
    require_usable_ids(cases)
    return cases
