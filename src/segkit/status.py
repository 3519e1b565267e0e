"""Say where a run stands: `python -m segkit.status key=value ...` or `segkit.status([...])`."""

from segkit._door import open_door

open_door(__name__, "status")
