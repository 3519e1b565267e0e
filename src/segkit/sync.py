"""Bring MLflow up to date from run folders: `python -m segkit.sync key=value ...` or `segkit.sync([...])`."""

from segkit._door import open_door

open_door(__name__, "sync")
