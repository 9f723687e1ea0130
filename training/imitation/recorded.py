"""Demonstrations from a LeRobotDataset on disk, as `rayward export` writes it (pictures in the Parquet files)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.base import ConfigError
from configs.bc import BCConfig
from training.imitation.robots import Demonstrations, table

IMAGE, STATE, ACTION = "observation.images.front", "observation.state", "action"
ROWS_PER_READ = 512


def recorded(folder: Path, config: BCConfig) -> Demonstrations:
    """Every `demonstrations.keep_every`-th frame with the actions that follow it in its episode, the last one repeated.
    Raises ConfigError for a folder that is no such dataset, and for one of another robot, camera or state."""
    _check(folder, config)
    tasks = _tasks(folder)
    images, states, prompts, chunks = [], [], [], []
    for number, frames in enumerate(_episodes(folder)):
        actions = np.array([frame[ACTION] for frame in frames], np.float32)
        for place in range(number % config.demonstrations.keep_every, len(frames), config.demonstrations.keep_every):
            frame = frames[place]
            images.append(_picture(frame[IMAGE]["bytes"]))
            states.append(np.array(frame[STATE], np.float32))
            prompts.append(tasks[frame["task_index"]])
            chunks.append(actions[np.minimum(place + np.arange(config.chunk_len), len(actions) - 1)])
    if not chunks:
        raise ConfigError(f"demonstrations.dataset: {folder} has no frames")
    return Demonstrations(np.stack(images), np.stack(states), prompts, np.stack(chunks))


def _check(folder: Path, config: BCConfig) -> None:
    try:
        features = json.loads((folder / "meta" / "info.json").read_text())["features"]
        found = tuple(tuple(features[name]["shape"]) for name in (IMAGE, STATE, ACTION))
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"demonstrations.dataset: {folder} is no LeRobotDataset with {IMAGE}, {STATE} and {ACTION} "
            f"({type(error).__name__}: {error}); `rayward export --config ...` writes one"
        ) from error
    env = table(config.table, "train")
    first, side = env.reset(0), config.table.side
    wanted = ((side, side, 3), first.state.shape, env.expert_chunk(1)[0].shape)
    if found != wanted:
        raise ConfigError(
            f"demonstrations.dataset: {folder} has pictures, states and actions of the shapes {found}, and the table "
            f"has {wanted}: export it with the same settings below `table`"
        )


def _tasks(folder: Path) -> dict[int, str]:
    import pandas

    named = pandas.read_parquet(folder / "meta" / "tasks.parquet")["task_index"]
    return {int(index): str(task) for task, index in named.items()}


def _episodes(folder: Path) -> Iterator[list[Mapping[str, Any]]]:
    from pyarrow import parquet

    columns = [IMAGE, STATE, ACTION, "task_index", "episode_index"]
    for file in sorted((folder / "data").glob("*/*.parquet")):
        batches = parquet.ParquetFile(file).iter_batches(ROWS_PER_READ, columns=columns)
        rows = (row for batch in batches for row in batch.to_pylist())
        for _, frames in groupby(rows, key=lambda row: row["episode_index"]):
            yield list(frames)


def _picture(written: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(written)).convert("RGB"), np.uint8)
