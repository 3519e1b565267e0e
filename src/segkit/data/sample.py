"""Where the sample data lies: in the installed package, or beside `src` in a checkout."""

from pathlib import Path
from types import MappingProxyType
from typing import Final

from segkit.errors import StorageError, UsageError

_FOLDERS: Final = MappingProxyType({"hippocampus": "Dataset004_Hippocampus", "nuclei": "nuclei"})


def sample_root(name: str = "hippocampus") -> Path:
    """Absolute path of a sample data set.

    Args:
        name: `hippocampus` (3D MRI, three classes, 40 people) or `nuclei` (2D microscopy, instances, 60 pictures).

    Raises:
        UsageError: There is no sample of this name.
        StorageError: The package was installed without its sample data.
    """
    if name not in _FOLDERS:
        raise UsageError(
            f"there is no sample data '{name}'", where="data.root", mend=f"choose one of {', '.join(sorted(_FOLDERS))}"
        )
    here = Path(__file__).resolve()
    candidates = [here.parents[1] / "sample_data" / _FOLDERS[name], here.parents[3] / "sample_data" / _FOLDERS[name]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise StorageError(
        "the sample data is not there",
        where=" or ".join(str(candidate) for candidate in candidates),
        mend="install segkit from its wheel or a full checkout, or name your own data: data.root=/my/dataset",
    )
