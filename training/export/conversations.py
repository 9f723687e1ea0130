"""A run's recorded episodes as a Hugging Face dataset: one row for each episode, as a conversation and as tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from deployments.storage.runs import RunFolder
from training.export.folders import new_folder

ROWS_PER_READ = 1024
EPISODES_PER_FILE = 2000
CARD = """---
configs:
  - config_name: default
    data_files:
      - split: train
        path: data/*.parquet
tags:
  - reinforcement-learning
---

# Episodes of {run}

{episodes} episodes of the environment `{env}` that a policy played while it was trained by rayward (GRPO); {left_out}.

One row is one episode. `messages` is the conversation; `images` are what its observations showed, in their order.
`turns` has for each answer what was sampled, as tokens of the policy's tokenizer: `prompt_ids` (the whole prompt),
`completion_ids`, `logprobs` (the sampler's, one for each token of the answer), `reward`, `weight_version`. Rows with
the same `step` and `group` are siblings: they played the same situation.
"""

Row = Mapping[str, Any]


def export_run(run: RunFolder, folder: Path, success_only: bool = False) -> Counter[str]:
    """Writes `README.md` and `data/*.parquet`, which `datasets.load_dataset(folder)` reads. Returns how many episodes
    were written (`written`), and how many were left out, by the reason. Memory does not grow with the run.

    Raises ConfigError for a run without recorded episodes, and for a folder that holds something.
    """
    files = sorted(run.episodes.glob("step-*.parquet"))
    if not files:
        raise ConfigError(
            f"{run.path} has no recorded episodes (tracking.episodes_every_steps of the run says how often they are)"
        )
    counts: Counter[str] = Counter()
    with new_folder(folder) as staged:
        _write(files, run.path.name, staged, success_only, counts)
        left = ", ".join(f"{count} {reason}" for reason, count in counts.items() if reason != "written")
        env = run.load_config().env.name
        left_out = f"left out: {left}" if left else "all that were recorded"
        card = CARD.format(run=run.path.name, episodes=counts["written"], env=env, left_out=left_out)
        (staged / "README.md").write_text(card)
    return counts


def _write(files: list[Path], run: str, folder: Path, success_only: bool, counts: Counter[str]) -> None:
    import datasets

    (folder / "data").mkdir()
    datasets.disable_progress_bars()
    for number, rows in enumerate(batched(_chosen(files, run, success_only, counts), EPISODES_PER_FILE)):
        table = datasets.Dataset.from_list(rows, features=_features())
        table.to_parquet(str(folder / "data" / f"train-{number:05d}.parquet"))
    if not counts["written"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise ConfigError(f"no episode is left to be exported: {reasons}. Leave --success-only out")


def batched(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of `size` rows, the last one shorter."""
    while batch := list(islice(rows, size)):
        yield batch


def _chosen(files: list[Path], run: str, success_only: bool, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for file in files:
        for turns in _episodes(file):
            end, success = turns[0]["end"], turns[0]["success"]
            if end not in ("completed", "truncated"):
                counts[end] += 1
            elif success_only and not success:
                counts["without success"] += 1
            else:
                counts["written"] += 1
                yield _row(turns, run, file.parent / "images")


def _episodes(file: Path) -> Iterator[list[Row]]:
    """The turns of each episode: they stand one after the other in the file."""
    from pyarrow import parquet

    batches = parquet.ParquetFile(file).iter_batches(ROWS_PER_READ)
    rows = (row for batch in batches for row in batch.to_pylist())
    for _, turns in groupby(rows, key=lambda row: (row["group"], row["sibling"])):
        yield list(turns)


def _row(turns: list[Row], run: str, images: Path) -> dict[str, Any]:
    first = turns[0]
    messages = []
    for turn in turns:
        messages += [{"role": "user", "content": turn["observation"]}, {"role": "assistant", "content": turn["answer"]}]
    names = [name for turn in turns for name in turn["images"]]
    kept = ("prompt_ids", "completion_ids", "logprobs", "reward", "weight_version", "parse_ok")
    return {
        "run": run,
        **{name: first[name] for name in ("env", "seed", "step", "group", "sibling", "success", "return", "end")},
        "messages": messages,
        "images": [{"path": None, "bytes": (images / name).read_bytes()} for name in names],
        "turns": [{name: turn[name] for name in kept} for turn in turns],
    }


def _features() -> Any:
    from datasets import Features, Image, List, Value

    turn = {
        "prompt_ids": List(Value("int32")),
        "completion_ids": List(Value("int32")),
        "logprobs": List(Value("float32")),
        "reward": Value("float64"),
        "weight_version": Value("int64"),
        "parse_ok": Value("bool"),
    }
    return Features(
        {
            "run": Value("string"),
            "env": Value("string"),
            "seed": Value("int64"),
            "step": Value("int64"),
            "group": Value("int64"),
            "sibling": Value("int32"),
            "success": Value("bool"),
            "return": Value("float64"),
            "end": Value("string"),
            "messages": List({"role": Value("string"), "content": Value("string")}),
            "images": List(Image()),
            "turns": List(turn),
        }
    )
