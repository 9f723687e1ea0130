"""config.json as an object."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace


class PreTrainedConfig(SimpleNamespace):
    type: str
    device: str
    chunk_size: int
    n_obs_steps: int

    @classmethod
    def from_pretrained(cls, folder: Path) -> PreTrainedConfig:
        return cls(**json.loads((folder / "config.json").read_text()))

    @property
    def image_features(self) -> list[str]:
        return [name for name, feature in self.input_features.items() if feature["type"] == "VISUAL"]
