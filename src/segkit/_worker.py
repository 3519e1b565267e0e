"""One rank of a training on several devices: `python -m segkit._worker RUN_DIR`, started by `segkit.train`."""

import sys

from segkit.workflows.rank import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
