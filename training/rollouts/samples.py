"""Episodes to training sequences: turns whose prompt only grows become one sequence, others one each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from training.types import Episode, Group, Sample, Turn


def sequences(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Runs of turns in which each prompt starts with the previous prompt and answer."""
    run: list[Turn] = []
    for turn in turns:
        if run and not _grows(run[-1], turn):
            yield run
            run = []
        run.append(turn)
    if run:
        yield run


def episode_samples(episode: Episode, advantage: float, group: int) -> list[Sample]:
    return [_sample(run, advantage, group) for run in sequences(episode.turns)]


def group_samples(group: Group, advantages_G: Sequence[float], index: int) -> list[Sample]:
    """All sequences of a group, each with its episode's advantage."""
    if len(advantages_G) != len(group.episodes):
        raise ValueError(f"{len(advantages_G)} advantages for {len(group.episodes)} episodes")
    return [
        sample
        for episode, advantage in zip(group.episodes, advantages_G, strict=True)
        for sample in episode_samples(episode, advantage, index)
    ]


def _grows(before: Turn, after: Turn) -> bool:
    size, answer = len(before.prompt_ids), len(before.completion_ids)
    return (
        after.prompt_ids[:size] == before.prompt_ids and after.prompt_ids[size : size + answer] == before.completion_ids
    )


def _sample(run: Sequence[Turn], advantage: float, group: int) -> Sample:
    ids: list[int] = []
    mask: list[int] = []
    logp: list[float] = []
    for turn in run:
        context = turn.prompt_ids[len(ids) :]
        ids += context
        mask += [0] * len(context)
        logp += [0.0] * len(context)
        ids += turn.completion_ids
        mask += [1] * len(turn.completion_ids)
        logp += turn.logprobs
    return Sample(tuple(ids), tuple(mask), tuple(logp), advantage, group, min(t.weight_version for t in run))
