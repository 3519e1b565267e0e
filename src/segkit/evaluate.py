"""Score a run on whole images: `python -m segkit.evaluate key=value ...` or `segkit.evaluate([...])`."""

from segkit._door import open_door

open_door(__name__, "evaluate")
