"""A finished group as it travels: a summary for the coordinator, the tokens of its samples in three arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from training.algorithms.credit import Advantage, Earnings
from training.rollouts.samples import episode_samples, sequences
from training.types import Episode, EpisodeSummary, Group, GroupSummary, Images, Sample, Task, Turn


@dataclass(frozen=True)
class PackedTurns:
    """The K turns of a group, those of its first sequence first."""

    turns_S: np.ndarray  # int64: how many turns each sequence has
    tokens_K: np.ndarray  # int64: tokens of each turn in its sequence, context included
    reward_K: np.ndarray  # float64
    state_K: np.ndarray  # int64: equal where the policy saw the same

    def of(self, sequence: int) -> slice:
        """Where the turns of a sequence are."""
        end = int(self.turns_S[: sequence + 1].sum())
        return slice(end - int(self.turns_S[sequence]), end)


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
    turns: PackedTurns
    images: Images = ()  # all different ones; siblings and turns that see the same share it
    images_S: tuple[tuple[int, ...], ...] = ()  # which of them each sequence shows, in order; () without images

    def earnings(self) -> Earnings:
        sibling_K = np.repeat(self.sibling_S, self.turns.turns_S)
        of_G = [sibling_K == sibling for sibling in range(len(self.return_G))]
        return Earnings(
            self.return_G.tolist(),
            [self.turns.reward_K[its].tolist() for its in of_G],
            [self.turns.state_K[its].tolist() for its in of_G],
        )

    def sample(self, sequence: int, advantage: Advantage, group: int) -> Sample:
        """One sequence; its arrays are views. `advantage`: of all its tokens, or of each of its turns."""
        end = int(self.tokens_S[: sequence + 1].sum())
        part = slice(end - int(self.tokens_S[sequence]), end)
        return Sample(
            cast("Sequence[int]", self.token_ids_N[part]),  # arrays are sequences in all but their declared type
            cast("Sequence[int]", self.mask_N[part]),
            cast("Sequence[float]", self.sampler_logp_N[part]),
            advantage if isinstance(advantage, float) else self._of_tokens(advantage, sequence),
            group,
            int(self.version_S[sequence]),
            tuple(self.images[each] for each in self.images_S[sequence]) if self.images else (),
        )

    def _of_tokens(self, advantages: Sequence[float], sequence: int) -> Sequence[float]:
        return cast("Sequence[float]", np.repeat(advantages, self.turns.tokens_K[self.turns.of(sequence)]))


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
    states = [tuple(state_of(turn) for turn in episode.turns) for episode in group.episodes]
    summaries = tuple(
        _summary(episode, samples, states_H)
        for episode, samples, states_H in zip(group.episodes, made, states, strict=True)
    )
    samples = [sample for of_episode in made for sample in of_episode]
    packed = GroupSamples(
        _joined([sample.token_ids_T for sample in samples], np.int32),
        _joined([sample.mask_T for sample in samples], np.int8),
        _joined([sample.sampler_logp_T for sample in samples], np.float32),
        np.array([len(sample.token_ids_T) for sample in samples], np.int64),
        np.array([sample.weight_version for sample in samples], np.int64),
        np.array([sibling for sibling, of_episode in enumerate(made) for _ in of_episode], np.int64),
        np.array(group.returns_G, np.float64),
        _turns(group, [state for states_H in states for state in states_H]),
        *_stored_once([sample.images for sample in samples]),
    )
    return GroupSummary(group.task, summaries, dict(counts)), packed


def _turns(group: Group, states_K: Sequence[int]) -> PackedTurns:
    runs = [run for episode in group.episodes for run in sequences(episode.turns)]
    turns = [turn for run in runs for turn in run]
    return PackedTurns(
        np.array([len(run) for run in runs], np.int64),
        np.array([len(turn.added_ids) + len(turn.completion_ids) for turn in turns], np.int64),
        np.array([turn.reward for turn in turns], np.float64),
        np.array(states_K, np.int64),
    )


def state_of(turn: Turn) -> int:
    """A number that turns share in which the policy was shown the same text and the same images. It is only good for
    comparisons within a process."""
    return hash((turn.prompt_text, tuple((image.shape, image.tobytes()) for image in turn.images)))


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


def _summary(episode: Episode, samples: Sequence[Sample], states_H: tuple[int, ...]) -> EpisodeSummary:
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
        turn_rewards=tuple(turn.reward for turn in episode.turns),
        turn_states=states_H,
        sequence_turns=tuple(len(run) for run in sequences(episode.turns)),
    )


def _summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for of_turn in parts:
        for name, value in of_turn.items():
            total[name] = total.get(name, 0.0) + value
    return total
