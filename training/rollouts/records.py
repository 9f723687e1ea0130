"""Episodes on disk: Parquet, one row per turn; images beside it as PNG files, each once, named by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.types import Group, Turn, prompts


def rows(groups: Sequence[Group], step: int) -> Iterator[dict[str, Any]]:
    """A turn with what it takes to train on it again (its whole prompt, put together again), and where it stands."""
    for group in groups:
        for episode in group.episodes:
            for index, (turn, prompt) in enumerate(zip(episode.turns, prompts(episode.turns), strict=True)):
                yield {
                    "step": step,
                    "env": episode.task.env,
                    "seed": episode.task.seed,
                    "group": episode.task.index,
                    "sibling": episode.sibling,
                    "turn": index,
                    "observation": turn.prompt_text,
                    "answer": turn.text,
                    "prompt_ids": list(prompt),
                    "completion_ids": list(turn.completion_ids),
                    "logprobs": list(turn.logprobs),
                    "reward": turn.reward,
                    "weight_version": turn.weight_version,
                    "parse_ok": turn.parse_ok,
                    "extends": turn.extends,
                    "images": [name_of(image) for image in turn.images],
                    "end": episode.end,
                    "truncation": episode.truncation or "",
                    "success": episode.success,
                    "return": episode.episode_return,
                }


def turns(rows: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of one episode from its rows, in their order."""
    made: list[Turn] = []
    sent = 0
    for row in rows:
        added = row["prompt_ids"][sent:] if row["extends"] else row["prompt_ids"]
        sent = len(row["prompt_ids"]) + len(row["completion_ids"])
        made.append(
            Turn(
                added_ids=tuple(added),
                completion_ids=tuple(row["completion_ids"]),
                logprobs=tuple(row["logprobs"]),
                weight_version=row["weight_version"],
                reward=row["reward"],
                text=row["answer"],
                parse_ok=row["parse_ok"],
                prompt_text=row["observation"],
                extends=row["extends"],
            )
        )
    return made


def write(groups: Sequence[Group], step: int, folder: Path) -> Path:
    """`step-NNNNNNNN.parquet` in `folder` (created); replaced as a whole when the step is played again. Images are in
    `images/`, whichever step showed them first."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}.parquet"
    staged = target.with_suffix(".tmp")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows(groups, step))), staged)
    _write_images((i for group in groups for e in group.episodes for turn in e.turns for i in turn.images), folder)
    staged.rename(target)
    return target


def name_of(image: np.ndarray) -> str:
    """A file's name that only equal images share."""
    return hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=16).hexdigest() + ".png"


def _write_images(images: Iterable[np.ndarray], folder: Path) -> None:
    from PIL import Image

    for image in images:
        target = folder / "images" / name_of(image)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            staged = target.with_suffix(".tmp")
            Image.fromarray(image).save(staged, format="PNG")
            staged.rename(target)
