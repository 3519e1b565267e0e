"""Look at this machine: `python -m segkit.doctor key=value ...` or `segkit.doctor([...])`."""

from segkit._door import open_door

open_door(__name__, "doctor")
