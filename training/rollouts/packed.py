"""A finished group as it travels: a summary for the coordinator, the tokens of its samples in three arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from training.rollouts.samples import episode_samples
from training.types import Episode, EpisodeSummary, Group, GroupSummary, Images, Sample, Task


@dataclass(frozen=True)
class GroupSamples:
    """The S training sequences of a group, N tokens in all, one behind the other; without their advantages, which only
    the whole group has."""

    token_ids_N: np.ndarray  # int32
    mask_N: np.ndarray  # int8
    sampler_logp_N: np.ndarray  # float32
    tokens_S: np.ndarray  # int64: length of each sequence
    version_S: np.ndarray  # int64: the oldest weight version of each
    sibling_S: np.ndarray  # int64: the episode of each, by its position in the group
    return_G: np.ndarray  # float64: return of each episode
    images: Images = ()  # all different ones; siblings and turns that see the same share it
    images_S: tuple[tuple[int, ...], ...] = ()  # which of them each sequence shows, in order; () without images

    def sample(self, sequence: int, advantage: float, group: int) -> Sample:
        """One sequence; its arrays are views."""
        end = int(self.tokens_S[: sequence + 1].sum())
        part = slice(end - int(self.tokens_S[sequence]), end)
        return Sample(
            cast("Sequence[int]", self.token_ids_N[part]),  # arrays are sequences in all but their declared type
            cast("Sequence[int]", self.mask_N[part]),
            cast("Sequence[float]", self.sampler_logp_N[part]),
            advantage,
            group,
            int(self.version_S[sequence]),
            tuple(self.images[each] for each in self.images_S[sequence]) if self.images else (),
        )


@dataclass(frozen=True)
class PlayedGroup:
    """A finished group as the coordinator holds it: its tokens stay where they were made, behind references."""

    summary: GroupSummary
    samples: Any  # GroupSamples, or a reference to them
    episodes: Any = None  # tuple[Episode, ...] or a reference to it; None when nobody will read them
    replaced: tuple[GroupSummary, ...] = ()  # groups without spread that were played in its place before

    @property
    def task(self) -> Task:
        return self.summary.task

    @property
    def oldest_version(self) -> int:
        return self.summary.oldest_version


def pack(group: Group, counts: Mapping[str, int]) -> tuple[GroupSummary, GroupSamples]:
    """The summary of a group, and its samples in the order of its siblings and their turns."""
    made = [episode_samples(episode, 0.0, 0) for episode in group.episodes]
    summaries = tuple(_summary(episode, samples) for episode, samples in zip(group.episodes, made, strict=True))
    samples = [sample for of_episode in made for sample in of_episode]
    packed = GroupSamples(
        _joined([sample.token_ids_T for sample in samples], np.int32),
        _joined([sample.mask_T for sample in samples], np.int8),
        _joined([sample.sampler_logp_T for sample in samples], np.float32),
        np.array([len(sample.token_ids_T) for sample in samples], np.int64),
        np.array([sample.weight_version for sample in samples], np.int64),
        np.array([sibling for sibling, of_episode in enumerate(made) for _ in of_episode], np.int64),
        np.array(group.returns_G, np.float64),
        *_stored_once([sample.images for sample in samples]),
    )
    return GroupSummary(group.task, summaries, dict(counts)), packed


def _stored_once(images_S: Sequence[Images]) -> tuple[Images, tuple[tuple[int, ...], ...]]:
    """All different images, and the positions among them of each sequence's."""
    places: dict[tuple[tuple[int, ...], bytes], int] = {}
    different: list[np.ndarray] = []
    for image in (image for images in images_S for image in images):
        if (key := (image.shape, image.tobytes())) not in places:
            places[key] = len(different)
            different.append(image)
    if not different:
        return (), ()
    return tuple(different), tuple(tuple(places[i.shape, i.tobytes()] for i in images) for images in images_S)


def _joined(parts: Sequence[Sequence[float]], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype) for part in parts]) if parts else np.zeros(0, dtype)


def _summary(episode: Episode, samples: Sequence[Sample]) -> EpisodeSummary:
    first = episode.turns[0]
    return EpisodeSummary(
        episode_return=episode.episode_return,
        end=episode.end,
        truncation=episode.truncation,
        success=episode.success,
        turns=len(episode.turns),
        illegal_turns=sum(turn.illegal for turn in episode.turns),
        completion_tokens=sum(len(turn.completion_ids) for turn in episode.turns),
        sequence_tokens=tuple(len(sample.token_ids_T) for sample in samples),
        oldest_version=episode.oldest_version,
        episode_s=episode.episode_s,
        first_prompt=hash(first.added_ids),
        first_answer=hash(first.completion_ids),
        first_logp=sum(first.logprobs),
        first_version=first.weight_version,
        reward_parts=_summed([turn.reward_parts for turn in episode.turns]),
    )


def _summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for of_turn in parts:
        for name, value in of_turn.items():
            total[name] = total.get(name, 0.0) + value
    return total
