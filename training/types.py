"""What flows through training: Turn -> Episode -> Group -> Sample -> Batch. Frozen, invariants checked when made.

Suffixes: _T token of a sequence, _G sibling of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

EndReason = Literal["completed", "truncated", "env_failed", "infra_failed"]
Truncation = Literal["turn_cap", "context_full", "environment"]
Images = tuple[NDArray[np.uint8], ...]  # [height, width, 3] each


@dataclass(frozen=True, slots=True)
class Task:
    """One situation to play: `Task(env="tictactoe", seed=7)`; the siblings of a group share it."""

    env: str
    seed: int
    index: int = 0  # position in the run's task stream: the identity of its group
    stage: str = ""  # of the run's curriculum, if it has one

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Unpickles the fields in their order. A checkpoint written before tasks had a stage ends with `index`."""
        names = ("env", "seed", "index", "stage")
        for name, value in zip(names, [*state, ""][: len(names)], strict=True):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request and its answer, as tokens. A turn holds what was added to the conversation, not the whole of it:

    Turn(added_ids=(5, 6, 7), completion_ids=(8, 2), logprobs=(-0.1, -0.2), weight_version=3, reward=0.0)
    Turn(added_ids=(9, 4), completion_ids=(8, 2), ..., extends=True)  # its prompt is 5 6 7 8 2 9 4
    """

    added_ids: tuple[int, ...]  # context before the answer: the whole prompt, or what follows the turn before
    completion_ids: tuple[int, ...]  # what the policy sampled, stop token included
    logprobs: tuple[float, ...]  # the sampler's, one a completion token
    weight_version: int
    reward: float
    finish_reason: str = "stop"
    text: str = ""
    parse_ok: bool = True
    illegal: bool = False
    prompt_text: str = ""
    extends: bool = False  # the prompt is the previous turn's prompt and answer, then `added_ids`
    reward_parts: Mapping[str, float] = field(default_factory=dict)  # by name, where the environment tells them
    images: Images = field(default=(), compare=False)  # that `added_ids` show, in their order

    def __post_init__(self) -> None:
        if len(self.completion_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.completion_ids)} completion tokens but {len(self.logprobs)} log-probabilities")
        if not self.completion_ids:
            raise ValueError("a turn holds at least one completion token")


@dataclass(frozen=True, slots=True)
class Episode:
    """A finished episode. Failed ones (env_failed, infra_failed) have no reward and never reach a batch.

    The second sibling of a task lost in two turns, its return is -1: Episode(task, sibling=1, turns=(t0, t1),
    end="completed", outcome="loss"), where t1.reward is -1.0. One that was cut off by the cap on turns:
    Episode(task, sibling=2, turns=(t0, t1), end="truncated", truncation="turn_cap").
    """

    task: Task
    sibling: int
    turns: tuple[Turn, ...]
    end: EndReason
    success: bool = False
    outcome: str = ""  # win | draw | loss where it applies
    error: str = ""  # for people: why a failed episode failed
    retries: int = 0
    episode_s: float = 0.0
    truncation: Truncation | None = None  # which limit ended a truncated episode
    retryable: bool = True  # of a failed episode: another try may succeed

    def __post_init__(self) -> None:
        if (self.end == "truncated") != (self.truncation is not None):
            raise ValueError(f"an episode that ended as {self.end} cannot have truncation {self.truncation!r}")

    @property
    def ok(self) -> bool:
        return self.end in ("completed", "truncated")

    @property
    def episode_return(self) -> float:
        if not self.ok:
            raise ValueError(f"an episode that ended as {self.end} has no return: a failure is never a zero reward")
        return sum(turn.reward for turn in self.turns)

    @property
    def oldest_version(self) -> int:
        return min((turn.weight_version for turn in self.turns), default=0)


def prompts(turns: Sequence[Turn]) -> Iterator[tuple[int, ...]]:
    """The whole prompt of each turn, as it was sent.

    >>> list(prompts([Turn((5,), (8,), (-0.1,), 0, 0.0), Turn((9,), (2,), (-0.2,), 0, 1.0, extends=True)]))
    [(5,), (5, 8, 9)]
    """
    sent: tuple[int, ...] = ()
    for turn in turns:
        prompt = sent + turn.added_ids if turn.extends else turn.added_ids
        yield prompt
        sent = prompt + turn.completion_ids


@dataclass(frozen=True, slots=True)
class Group:
    """All siblings of one task; complete by construction.

    Four siblings of which two won have returns_G [1.0, -1.0, 1.0, -1.0]; their weights may differ, and the group is as
    old as the oldest: Group(task, (e0, e1, e2, e3)).oldest_version is 7 when e2 began with version 7.
    """

    task: Task
    episodes: tuple[Episode, ...]

    def __post_init__(self) -> None:
        if len(self.episodes) < 1:
            raise ValueError("a group holds at least one episode")
        for episode in self.episodes:
            if not episode.ok:
                raise ValueError(f"a group takes finished episodes only, not {episode.end} ({episode.error})")
            if episode.task != self.task:
                raise ValueError(f"episode of task {episode.task} in the group of {self.task}")

    @property
    def returns_G(self) -> list[float]:
        return [episode.episode_return for episode in self.episodes]

    @property
    def oldest_version(self) -> int:
        return min(episode.oldest_version for episode in self.episodes)


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """What the coordinator knows of an episode: numbers, no tokens."""

    episode_return: float
    end: EndReason
    truncation: Truncation | None
    success: bool
    turns: int
    illegal_turns: int
    completion_tokens: int  # tokens that the policy chose
    sequence_tokens: tuple[int, ...]  # length of each of its training sequences
    oldest_version: int
    episode_s: float
    first_prompt: int = 0  # hash of the ids of its first prompt
    first_answer: int = 0  # hash of the ids of its first answer
    first_logp: float = 0.0  # of the whole first answer, the sampler's
    first_version: int = 0  # weight version of the first answer
    reward_parts: Mapping[str, float] = field(default_factory=dict)  # by name, summed over the turns
    turn_rewards: tuple[float, ...] = ()
    turn_states: tuple[int, ...] = ()  # hash of what was seen before each turn
    sequence_turns: tuple[int, ...] = ()  # how many turns each training sequence has


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A finished group without its tokens. `counts`: what went wrong while it was played, by reason."""

    task: Task
    episodes: tuple[EpisodeSummary, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def returns_G(self) -> list[float]:
        return [episode.episode_return for episode in self.episodes]

    @property
    def uniform(self) -> bool:
        """No spread in the returns: no sibling was better than another."""
        return len(set(self.returns_G)) == 1

    @property
    def oldest_version(self) -> int:
        return min(episode.oldest_version for episode in self.episodes)


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sequence of T tokens, as tuples or numpy arrays. `mask_T[t]` is 1 where the policy chose token t;
    `sampler_logp_T[t]` is its log-probability at sampling (0 elsewhere); `advantage` is one number for every chosen
    token, or, where turns have advantages of their own, one for each of the T tokens.

    Sample(token_ids_T=(5, 6, 8, 2), mask_T=(0, 0, 1, 1), sampler_logp_T=(0., 0., -.1, -.2), advantage=0.5)
    """

    token_ids_T: Sequence[int]
    mask_T: Sequence[int]
    sampler_logp_T: Sequence[float]
    advantage: float | Sequence[float]
    group: int = 0
    weight_version: int = 0
    images: Images = field(default=(), compare=False)  # that the tokens show, in their order

    def __post_init__(self) -> None:
        if not len(self.token_ids_T) == len(self.mask_T) == len(self.sampler_logp_T):
            raise ValueError(
                f"lengths differ: {len(self.token_ids_T)} tokens, {len(self.mask_T)} mask, "
                f"{len(self.sampler_logp_T)} log-probabilities"
            )
        if not isinstance(self.advantage, int | float) and len(self.advantage) != len(self.mask_T):
            raise ValueError(
                f"{len(self.advantage)} advantages for {len(self.mask_T)} tokens: one for each, or one for all"
            )
        if len(self.mask_T) and self.mask_T[0]:
            raise ValueError("the first token has no context: it cannot be one that the policy chose")
        if not any(self.mask_T):
            raise ValueError("a sample without a chosen token trains nothing")

    @property
    def chosen(self) -> int:
        return int(np.count_nonzero(self.mask_T))


@dataclass(frozen=True, slots=True)
class Denominators:
    """What the loss of the WHOLE step is divided by, counted before it is cut over ranks and micro-batches.

    Two groups of two episodes, each a sequence with three chosen tokens, of which one group has no spread and is left
    out: Denominators(tokens=12, episodes=4, groups=1, trained_tokens=6) on every rank, whichever samples it has. A rank
    with one of the sequences adds 3 / 12 of the `dapo` loss.
    """

    tokens: int  # chosen tokens, of all groups of the step
    episodes: int  # of all groups of the step
    groups: int = 1  # that are trained on
    trained_tokens: int = 0  # chosen tokens of those


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one learner step (one rank's share), with the denominators of the whole.

    Of the batch above, on the second of two ranks: Batch(samples=(s1,), denominators=Denominators(12, 4, 1, 6), step=7)
    """

    samples: tuple[Sample, ...]
    denominators: Denominators
    step: int = 0
    version: int | None = None  # of the learner's weights when the step begins; None: not known
    metrics: Mapping[str, float] = field(default_factory=dict)


def returns(episodes: Sequence[Episode]) -> list[float]:
    return [episode.episode_return for episode in episodes]
