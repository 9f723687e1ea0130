"""Episodes to training sequences: turns that extend each other become one sequence, others one each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from training.types import Episode, Group, Sample, Turn


def sequences(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Runs of turns in which each prompt is the previous prompt and answer, and what was added."""
    run: list[Turn] = []
    for turn in turns:
        if run and not turn.extends:
            yield run
            run = []
        run.append(turn)
    if run:
        yield run


def episode_samples(episode: Episode, advantage: float, group: int) -> list[Sample]:
    return [sample(run, advantage, group) for run in sequences(episode.turns)]


def group_samples(group: Group, advantages_G: Sequence[float], index: int) -> list[Sample]:
    """All sequences of a group, each with its episode's advantage."""
    if len(advantages_G) != len(group.episodes):
        raise ValueError(f"{len(advantages_G)} advantages for {len(group.episodes)} episodes")
    return [
        made
        for episode, advantage in zip(group.episodes, advantages_G, strict=True)
        for made in episode_samples(episode, advantage, index)
    ]


def sample(run: Sequence[Turn], advantage: float, group: int) -> Sample:
    """The sequence of turns that extend each other: context (mask 0) and answers (mask 1) in turn."""
    ids: list[int] = []
    mask: list[int] = []
    logp: list[float] = []
    for turn in run:
        ids += turn.added_ids + turn.completion_ids
        mask += [0] * len(turn.added_ids) + [1] * len(turn.completion_ids)
        logp += [0.0] * len(turn.added_ids)
        logp += turn.logprobs
    images = tuple(image for turn in run for image in turn.images)
    return Sample(tuple(ids), tuple(mask), tuple(logp), advantage, group, min(t.weight_version for t in run), images)
