"""File readers: one module a family of formats; `formats` chooses by the file's ending.

`read` gives a `Volume` in the file's own voxel order; `write` gives a mask back in the geometry, size, data type
and file type of the image it belongs to. Every fault of a file is a `DataError` that names case, file, cause and
mend. nibabel, SimpleITK, Pillow and tifffile are imported nowhere else.
"""

from segkit.data.readers.channels import write_channels
from segkit.data.readers.formats import ENDINGS, ending_of, mask_name, notes, read, stem_of, write

__all__ = ["ENDINGS", "ending_of", "mask_name", "notes", "read", "stem_of", "write", "write_channels"]
