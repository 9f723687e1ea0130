"""From the groups of a step to each rank's share of the batch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from configs.training import AlgorithmConfig
from training.algorithms.credit import Advantage, Earnings, credited, divided, numbers, of_sequences
from training.rollouts.packed import GroupSamples
from training.types import Batch, Denominators, GroupSummary, Sample

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """One training sequence: where its tokens are, and what it is trained with."""

    group: int  # position among the step's groups
    sequence: int  # position among the group's samples
    tokens: int
    advantage: Advantage  # of the sequence, or of each of its turns
    kept: int  # position of its group among those that train


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rank trains on which sequences, and what the whole loss is divided by."""

    shares: tuple[tuple[Place, ...], ...]  # one a rank
    denominators: Denominators
    dropped_groups: int


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of a step as it travels: places, and references to the samples of the groups they name."""

    places: tuple[Place, ...]
    samples: Mapping[int, Any]  # group -> reference to its GroupSamples
    denominators: Denominators
    step: int
    metrics: Mapping[str, float]
    version: int | None = None  # of the learner's weights when the step begins


def plan(groups: Sequence[GroupSummary], algorithm: AlgorithmConfig, world: int) -> Plan:
    """Advantages within each group, groups without spread left out, every sequence to exactly one rank.

    The denominators count all groups, those left out as well: these would have added nothing to the sum. So a group
    weighs the same however many others have spread, and a step in which only one has is a small step.
    """
    places: list[Place] = []
    trained: list[GroupSummary] = []
    for index, group in enumerate(groups):
        if algorithm.drop_uniform_groups and without_spread(group, algorithm):
            continue
        advantages_G = credited(earnings(group), algorithm)
        places += _places(group, index, advantages_G, len(trained), algorithm.mean_per_sequence)
        trained.append(group)
    shares = tuple(tuple(share) for share in split_over_ranks(places, world, lambda place: place.tokens))
    whole = Denominators(
        tokens=_tokens(groups),
        episodes=sum(len(group.episodes) for group in groups),
        groups=len(trained),
        trained_tokens=_tokens(trained),
    )
    return Plan(shares, whole, len(groups) - len(trained))


def without_spread(group: GroupSummary, algorithm: AlgorithmConfig) -> bool:
    """Whether a group gives no gradient: its returns are all equal or, where turns have advantages of their own, no
    turn was better than those that it is compared with."""
    if algorithm.credit == "episode":
        return group.uniform
    return not any(numbers(credited(earnings(group), algorithm)))


def earnings(group: GroupSummary) -> Earnings:
    episodes = group.episodes
    return Earnings(group.returns_G, [each.turn_rewards for each in episodes], [each.turn_states for each in episodes])


def _tokens(groups: Sequence[GroupSummary]) -> int:
    return sum(episode.completion_tokens for group in groups for episode in group.episodes)


def _places(group: GroupSummary, index: int, advantages_G: Sequence[Advantage], kept: int, shared: bool) -> list[Place]:
    """`shared`: the sequences of an episode share its weight, which would grow with their number otherwise."""
    lengths = [
        (tokens, divided(of_sequence, len(episode.sequence_tokens)) if shared else of_sequence)
        for episode, advantage in zip(group.episodes, advantages_G, strict=True)
        for tokens, of_sequence in zip(
            episode.sequence_tokens, of_sequences(advantage, episode.sequence_turns), strict=True
        )
    ]
    return [Place(index, sequence, tokens, advantage, kept) for sequence, (tokens, advantage) in enumerate(lengths)]


def _length(sample: Sample) -> int:
    return len(sample.token_ids_T)


def split_over_ranks(sequences: Sequence[T], world: int, tokens: Callable[[Any], int] = _length) -> list[list[T]]:
    """Each sequence to exactly one rank, longest first to the rank with the fewest tokens so far."""
    shares: list[list[T]] = [[] for _ in range(world)]
    loads = [0] * world
    for sequence in sorted(sequences, key=lambda sequence: -tokens(sequence)):
        rank = loads.index(min(loads))
        shares[rank].append(sequence)
        loads[rank] += tokens(sequence)
    return shares


def share_of(
    rank: int,
    planned: Plan,
    samples: Sequence[Any],
    step: int,
    metrics: Mapping[str, float],
    version: int | None = None,
) -> Share:
    """What a rank is sent: only references to groups that it has sequences of. `samples`: one reference a group."""
    places = planned.shares[rank]
    needed = sorted({place.group for place in places})
    return Share(places, {group: samples[group] for group in needed}, planned.denominators, step, metrics, version)


def fetched(share: Share, fetch: Callable[[list[Any]], Sequence[GroupSamples]]) -> dict[int, GroupSamples]:
    """The groups of a share, by their position in the step. `fetch`: references to what they refer to, in one call
    (`ray.get`)."""
    return dict(zip(share.samples, fetch(list(share.samples.values())), strict=True))


def assemble(share: Share, packed: Mapping[int, GroupSamples]) -> Batch:
    """The batch of a rank."""
    samples: tuple[Sample, ...] = tuple(
        packed[place.group].sample(place.sequence, place.advantage, place.kept) for place in share.places
    )
    return Batch(samples, share.denominators, share.step, share.version, share.metrics)


def given(share: Share) -> list[float]:
    """The advantages of a share's sequences, in the order of `earned`."""
    return numbers([place.advantage for place in share.places])


def earned(share: Share, packed: Mapping[int, GroupSamples], algorithm: AlgorithmConfig) -> list[float]:
    """The advantages of the sequences of a share (one for each, or one for each of its turns), from the rewards that
    travelled with the tokens: what `plan`, which has summaries only, should have given them."""
    of_group = {group: _of_sequences(samples, algorithm) for group, samples in packed.items()}
    return numbers([of_group[place.group][place.sequence] for place in share.places])


def _of_sequences(samples: GroupSamples, algorithm: AlgorithmConfig) -> list[Advantage]:
    found: list[Advantage] = []
    for sibling, advantage in enumerate(credited(samples.earnings(), algorithm)):
        turns_S = samples.turns.turns_S[samples.sibling_S == sibling].tolist()
        parts = len(turns_S) if algorithm.mean_per_sequence else 1
        found += [divided(each, parts) for each in of_sequences(advantage, turns_S)]
    return found
