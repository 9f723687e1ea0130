"""GRPO through served replicas: `python -m training.grpo --config configs/train/NAME.yaml` is `rayward train`."""

import sys

from training.commands.app import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
