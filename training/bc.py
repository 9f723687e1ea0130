"""Behaviour cloning of a chunk policy: `python -m training.bc --config configs/bc/NAME.yaml` is `rayward bc`."""

import sys

from training.commands.app import run

if __name__ == "__main__":
    sys.exit(run(["bc", *sys.argv[1:]]))
