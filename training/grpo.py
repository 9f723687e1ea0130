"""GRPO through served replicas: `python -m training.grpo --config configs/train/NAME.yaml`.

The loop of one training process is `train_loop`; everything around it (Serve application, coordinator, worker group) is
in `train`.
"""

from __future__ import annotations


def main() -> None:
    from training.cli import run_train_module

    run_train_module()


if __name__ == "__main__":
    main()
