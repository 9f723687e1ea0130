"""LeRobot's dataset format, version 3.0, written without LeRobot: pictures are PNG images inside of the Parquet files.

`meta/info.json` (features, sizes, frame rate), `meta/stats.json` (of the whole dataset), `meta/tasks.parquet`
(instructions), `meta/episodes/` (one row for each episode: where its frames are, and their statistics) and `data/` (one
row for each frame). Source of the format: huggingface/lerobot, src/lerobot/datasets.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.export.folders import new_folder
from training.export.robots import Frame, RobotEpisode
from training.imitation.recorded import ACTION, IMAGE, STATE

VERSION = "v3.0"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
EPISODES_PER_FILE, FILES_PER_CHUNK = 100, 1000
COUNTED = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
RESULTS = {"next.reward": "float32", "next.done": "bool", "next.success": "bool"}
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def export_episodes(
    episodes: Iterator[RobotEpisode], folder: Path, fps: int, robot: str, names: Sequence[str]
) -> dict[str, int]:
    """Writes the dataset; returns its numbers of episodes, frames and tasks, and of successful episodes. `names`: of an
    action's numbers. Raises ConfigError for a folder that holds something."""
    with new_folder(folder) as staged:
        return _Writer(staged, fps, robot, names).write(episodes)


class _Writer:
    """Holds the frames of one data file at a time."""

    def __init__(self, folder: Path, fps: int, robot: str, names: Sequence[str]) -> None:
        self._folder, self._fps, self._robot, self._names = folder, fps, robot, list(names)
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []  # of the data file that is being filled
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, dict[str, Any]]] = []  # of each episode
        self._frames = self._files = self._successes = 0
        self._features: dict[str, dict[str, Any]] = {}

    def write(self, episodes: Iterator[RobotEpisode]) -> dict[str, int]:
        for episode in episodes:
            self._add(episode)
            if len(self._episodes) % EPISODES_PER_FILE == 0:
                self._close_file()
        self._close_file()
        self._write_meta()
        return {
            "episodes": len(self._episodes),
            "frames": self._frames,
            "tasks": len(self._tasks),
            "successes": self._successes,
        }

    def _add(self, episode: RobotEpisode) -> None:
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        self._features = self._features or _features(episode.frames[0], self._names)
        number, first = len(self._episodes), self._frames
        rows = [
            {
                STATE: frame.state.tolist(),
                ACTION: frame.action.tolist(),
                IMAGE: {"bytes": _png(frame.image), "path": None},
                "next.reward": float(frame.success),
                "next.done": frame.done,
                "next.success": frame.success,
                "timestamp": place / self._fps,
                "frame_index": place,
                "episode_index": number,
                "index": first + place,
                "task_index": task,
            }
            for place, frame in enumerate(episode.frames)
        ]
        self._rows += rows
        self._frames += len(rows)
        self._successes += episode.frames[-1].success
        self._stats.append(_statistics(episode.frames, rows))
        self._episodes.append(
            {
                "episode_index": number,
                "tasks": [episode.instruction],
                "length": len(rows),
                "data/chunk_index": self._files // FILES_PER_CHUNK,
                "data/file_index": self._files % FILES_PER_CHUNK,
                "dataset_from_index": first,
                "dataset_to_index": self._frames,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            | {
                f"stats/{feature}/{name}": value
                for feature, values in self._stats[-1].items()
                for name, value in values.items()
            }
        )

    def _close_file(self) -> None:
        import datasets

        if not self._rows:
            return
        target = self._folder / DATA.format(
            chunk_index=self._files // FILES_PER_CHUNK, file_index=self._files % FILES_PER_CHUNK
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        datasets.disable_progress_bars()
        datasets.Dataset.from_list(self._rows, features=_hf_features(self._features)).to_parquet(str(target))
        self._rows, self._files = [], self._files + 1

    def _write_meta(self) -> None:
        import pandas
        import pyarrow
        from pyarrow import parquet

        tasks = pandas.DataFrame({"task_index": list(self._tasks.values())}, index=list(self._tasks))
        meta = self._folder / "meta"
        (self._folder / EPISODES).parent.mkdir(parents=True)
        tasks.to_parquet(meta / "tasks.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(self._episodes), self._folder / EPISODES)
        (meta / "stats.json").write_text(json.dumps(_together(self._stats), indent=4))
        info = {
            "codebase_version": VERSION,
            "robot_type": self._robot,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA,
            "video_path": None,
            "features": self._features,
        }
        (meta / "info.json").write_text(json.dumps(info, indent=4))


def _features(frame: Frame, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """As info.json declares them."""
    vectors = {STATE: [f"s{place}" for place in range(len(frame.state))], ACTION: list(names)}
    return {
        **{name: {"dtype": "float32", "shape": [len(axes)], "names": axes} for name, axes in vectors.items()},
        IMAGE: {"dtype": "image", "shape": list(frame.image.shape), "names": ["height", "width", "channels"]},
        **{name: {"dtype": kind, "shape": [1], "names": None} for name, kind in (RESULTS | COUNTED).items()},
    }


def _hf_features(features: Mapping[str, Mapping[str, Any]]) -> Any:
    from datasets import Features, Image, List, Value

    kinds: dict[str, Any] = {}
    for name, feature in features.items():
        if feature["dtype"] == "image":
            kinds[name] = Image()
        elif feature["shape"] == [1]:
            kinds[name] = Value(feature["dtype"])
        else:
            kinds[name] = List(Value(feature["dtype"]), length=feature["shape"][0])
    return Features(kinds)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG")
    return written.getvalue()


def _statistics(frames: Sequence[Frame], rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of one episode. A picture's are for each channel over all pixels, between 0 and 1, as [3, 1, 1]."""
    pixels = np.stack([frame.image for frame in frames]).reshape(-1, 3) / 255.0
    found = {IMAGE: _of(pixels, (3, 1, 1)) | {"count": [len(frames)]}}
    for name in (STATE, ACTION, *RESULTS, *COUNTED):
        values = np.array([row[name] for row in rows], np.float64).reshape(len(rows), -1)
        found[name] = _of(values, (values.shape[1],)) | {"count": [len(rows)]}
    return found


def _of(values_ND: NDArray[np.float64], shape: tuple[int, ...]) -> dict[str, Any]:
    exact = {"min": values_ND.min(0), "max": values_ND.max(0), "mean": values_ND.mean(0), "std": values_ND.std(0)}
    quantiles = {name: np.quantile(values_ND, share, axis=0) for name, share in QUANTILES.items()}
    return {name: value.reshape(shape).tolist() for name, value in (exact | quantiles).items()}


def _together(episodes: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Statistics of all frames from those of the episodes."""
    return {feature: _joined([episode[feature] for episode in episodes]) for feature in episodes[0]}


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of one feature. Quantiles are means, weighted by frames, as LeRobot's aggregation has them."""
    values = {name: np.array([part[name] for part in parts], np.float64) for name in parts[0]}
    share = values["count"][:, 0] / values["count"].sum()
    mean = np.tensordot(share, values["mean"], axes=1)
    variance = np.tensordot(share, values["std"] ** 2 + (values["mean"] - mean) ** 2, axes=1)
    quantiles = {name: np.tensordot(share, values[name], axes=1).tolist() for name in QUANTILES}
    return {
        "min": values["min"].min(0).tolist(),
        "max": values["max"].max(0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        **quantiles,
        "count": [int(values["count"].sum())],
    }
