"""Prepare the cases of a data set: `python -m segkit.prepare key=value ...` or `segkit.prepare([...])`."""

from segkit._door import open_door

open_door(__name__, "prepare")
