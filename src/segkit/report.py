"""Write the report of a run: `python -m segkit.report key=value ...` or `segkit.report([...])`."""

from segkit._door import open_door

open_door(__name__, "report")
