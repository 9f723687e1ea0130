"""A sweep: `python -m training.tune --config configs/sweep/NAME.yaml` is `rayward sweep`."""

import sys

from training.commands.app import run

if __name__ == "__main__":
    sys.exit(run(["sweep", *sys.argv[1:]]))
