"""How the rewards of an episode's turns become advantages of its turns. Pure; adding one is a function and a line in
CREDITS.

The siblings of a group are compared by a function of `advantages` (compare). Where a set of values that are compared
has no spread, or only one member, nobody in it was better than another: the advantages are exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from configs.training import AlgorithmConfig
from training.algorithms.advantages import ADVANTAGES

Compare = Callable[[Sequence[float]], list[float]]
Advantage = float | tuple[float, ...]  # of an episode or sequence as a whole, or of each of its turns


@dataclass(frozen=True)
class Earnings:
    """What the G siblings of a group were paid, the i-th in H_i turns. `states_GH[i][k]` is equal for turns in which
    the policy saw the same observation, whichever sibling's they are.

    One sibling won in two turns, the other lost in one: Earnings([1.0, -1.0], [[0.0, 1.0], [-1.0]], [[7, 9], [7]])
    """

    returns_G: Sequence[float]
    rewards_GH: Sequence[Sequence[float]]
    states_GH: Sequence[Sequence[Hashable]]


def rewards_to_go(rewards_H: Sequence[float], gamma: float) -> list[float]:
    """R_k = r_k + gamma * R_{k+1}: what a turn and those after it were paid.

    >>> rewards_to_go([1.0, 0.0, 4.0], 0.5)
    [2.0, 2.0, 4.0]
    """
    following, to_go = 0.0, []
    for reward in reversed(rewards_H):
        following = reward + gamma * following
        to_go.append(following)
    return to_go[::-1]


def episode(earned: Earnings, compare: Compare, gamma: float) -> list[Advantage]:
    """A_ik = A_i, the advantage of the episode's return, for all its turns (GRPO, arXiv 2402.03300). Without gamma.

    >>> from training.algorithms.advantages import group_centered
    >>> episode(Earnings([1.0, 0.0], [[0.0, 1.0], [0.0]], [[7, 9], [7]]), group_centered, 1.0)
    [0.5, -0.5]
    """
    return [*compare(earned.returns_G)]


def turn_to_go(earned: Earnings, compare: Compare, gamma: float) -> list[Advantage]:
    """A_ik = R_ik compared with the R_jk of all siblings j that have a turn k: what was paid before a turn is not its
    merit, and the k-th turn is judged by the siblings' k-th turns, as MT-GRPO does (arXiv 2505.11821). Unlike there,
    rewards of turns and of the outcome are not normalised apart: their sum R_ik is.

    >>> from training.algorithms.advantages import group_centered
    >>> turn_to_go(Earnings([3.0, 1.0], [[2.0, 1.0], [0.0, 1.0]], [[7, 8], [7, 9]]), group_centered, 1.0)
    [(1.0, 0.0), (-1.0, 0.0)]
    """
    to_go_GH = [rewards_to_go(rewards, gamma) for rewards in earned.rewards_GH]
    return [tuple(values) for values in _compared(to_go_GH, [range(len(each)) for each in to_go_GH], compare)]


def anchor_state(earned: Earnings, compare: Compare, gamma: float) -> list[Advantage]:
    """A_ik = A_i + B_ik, where A_i is the episode's advantage and B_ik compares R_ik with that of every turn of the
    group, whichever sibling's, in which the policy saw the same observation (GiGPO, arXiv 2505.10978, with its weight
    omega of 1). A state that came up once adds 0.

    >>> from training.algorithms.advantages import group_centered
    >>> anchor_state(Earnings([1.0, 0.0], [[0.0, 1.0], [0.0]], [[7, 9], [7]]), group_centered, 1.0)
    [(1.0, 0.5), (-1.0,)]
    """
    to_go_GH = [rewards_to_go(rewards, gamma) for rewards in earned.rewards_GH]
    of_states_GH = _compared(to_go_GH, earned.states_GH, compare)
    (of_episodes_G,) = _compared([earned.returns_G], [[0] * len(earned.returns_G)], compare)
    return [
        tuple(whole + value for value in of_states)
        for whole, of_states in zip(of_episodes_G, of_states_GH, strict=True)
    ]


CREDITS: dict[str, Callable[[Earnings, Compare, float], list[Advantage]]] = {
    "episode": episode,
    "turn_to_go": turn_to_go,
    "anchor_state": anchor_state,
}


def credited(earned: Earnings, algorithm: AlgorithmConfig) -> list[Advantage]:
    """The advantage of each sibling, or of each of its turns, as the settings say."""
    return CREDITS[algorithm.credit](earned, ADVANTAGES[algorithm.advantage], algorithm.gamma)


def of_sequences(advantage: Advantage, turns_S: Sequence[int]) -> list[Advantage]:
    """The advantages of an episode's sequences, which have `turns_S` turns; one number for a sequence of one turn.

    >>> of_sequences((1.0, 2.0, 3.0), [1, 2]), of_sequences(0.5, [1, 2])
    ([1.0, (2.0, 3.0)], [0.5, 0.5])
    """
    if isinstance(advantage, float):
        return [advantage] * len(turns_S)
    ends = [sum(turns_S[: place + 1]) for place in range(len(turns_S))]
    parts = [advantage[end - turns : end] for end, turns in zip(ends, turns_S, strict=True)]
    return [part[0] if len(part) == 1 else part for part in parts]


def divided(advantage: Advantage, by: int) -> Advantage:
    return advantage / by if isinstance(advantage, float) else tuple(value / by for value in advantage)


def numbers(advantages: Sequence[Advantage]) -> list[float]:
    """All of them in one list."""
    return [value for each in advantages for value in ([each] if isinstance(each, float) else each)]


def _compared(
    values_GH: Sequence[Sequence[float]], keys_GH: Sequence[Sequence[Hashable]], compare: Compare
) -> list[list[float]]:
    """Each value compared with all that have the same key."""
    members: dict[Hashable, list[tuple[int, int]]] = {}
    for sibling, keys in enumerate(keys_GH):
        for turn, key in enumerate(keys):
            members.setdefault(key, []).append((sibling, turn))
    advantages = [[0.0] * len(values) for values in values_GH]
    for places in members.values():
        values = [values_GH[sibling][turn] for sibling, turn in places]
        if len(set(values)) == 1:
            continue
        for (sibling, turn), advantage in zip(places, compare(values), strict=True):
            advantages[sibling][turn] = advantage
    return advantages
