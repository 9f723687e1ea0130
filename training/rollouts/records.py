"""Episodes on disk: Parquet, one row a turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.types import Group


def rows(groups: Sequence[Group], step: int) -> Iterator[dict[str, Any]]:
    """A turn with what it takes to train on it again, and where it stands."""
    for group in groups:
        for episode in group.episodes:
            for index, turn in enumerate(episode.turns):
                yield {
                    "step": step,
                    "env": episode.task.env,
                    "seed": episode.task.seed,
                    "group": episode.task.index,
                    "sibling": episode.sibling,
                    "turn": index,
                    "observation": turn.prompt_text,
                    "answer": turn.text,
                    "prompt_ids": list(turn.prompt_ids),
                    "completion_ids": list(turn.completion_ids),
                    "logprobs": list(turn.logprobs),
                    "reward": turn.reward,
                    "weight_version": turn.weight_version,
                    "parse_ok": turn.parse_ok,
                    "end": episode.end,
                    "success": episode.success,
                    "return": episode.episode_return,
                }


def write(groups: Sequence[Group], step: int, folder: Path) -> Path:
    """`step-NNNNNNNN.parquet` in `folder` (created); replaced as a whole when the step is played again."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}.parquet"
    staged = target.with_suffix(".tmp")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows(groups, step))), staged)
    staged.rename(target)
    return target
