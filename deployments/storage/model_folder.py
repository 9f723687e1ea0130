"""Whether a model folder can be served."""

from __future__ import annotations

from pathlib import Path


def model_folder_error(model: str) -> str | None:
    """Why `model` cannot be served, if it is a path: checked before any process starts."""
    looks_like_path = model.startswith((".", "/", "~")) or Path(model).exists()
    if not looks_like_path:
        return None
    if not Path(model).is_dir():
        return f"model folder {model!r} does not exist: name one in Hugging Face format (config.json, *.safetensors)"
    if not (Path(model) / "config.json").is_file():
        return f"model folder {model!r} has no config.json: it is not in Hugging Face format"
    return None
