"""Libraries that talk about themselves leave the console to the command that runs."""

from __future__ import annotations

import logging
import os

SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # bars of loading and saving models
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def quiet_libraries() -> None:
    """Before the libraries are imported. A value that is already in the environment stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
