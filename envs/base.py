"""The contract of an environment: Gymnasium-like, on text and images."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import random
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

Split = Literal["all", "train", "heldout"]
HELDOUT_SHARE = 8  # one situation in eight is held out


class EpisodeOver(RuntimeError):
    """`step` after the end of an episode, or before `reset`."""


class OpponentToMove(RuntimeError):
    """`step` while a game for two waits for the other player's answer."""


class OpponentNotToMove(RuntimeError):
    """`opponent_step` while a game does not wait for the other player."""


class EnvUsageError(ValueError):
    """Base of the errors that a user can mend: an environment cannot be made or played as asked. The message says what
    to do."""


class SettingError(EnvUsageError):
    """A setting that the environment does not take; the message names the nearest one."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees: text, an optional HxWx3 uint8 image, and the perfect note where the environment has one.

    Of an episode's first observation also: `tools`, functions that the policy may call, as chat templates take them
    (`{"type": "function", "function": {name, description, parameters}}`, with a JSON schema); and `earlier`, (role,
    text) of the chat so far, with role system, user or assistant.
    """

    text: str
    image: np.ndarray | None = field(default=None, compare=False)
    note: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult:
    """`terminated`: the game ended; `truncated`: a limit ended it. `success` is the environment's own definition.

    `info` always has `parse_ok`; `illegal` is true for a malformed or forbidden action; `outcome` is win, draw or loss
    at the end where it applies; `rewards` names the parts of the reward before they are weighted, where there are any.
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RewardPart:
    """A named part of a reward. `lost_low` and `lost_high` bound its sum over an episode that was lost, before it is
    weighted: with them, what losing pays is known for other weights too."""

    weight: float = 1.0  # with which the environment itself adds it to the reward
    lost_low: float = 0.0
    lost_high: float = 0.0


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What does not change between episodes. `failure_return`: the return of an episode that was lost, None where
    losing has none of its own. `policy_opponent`: a game for two whose other player's moves come from a policy
    (`Env.opponent_observation`). `reward_parts`: every name that `info["rewards"]` may have; the reward of a step that
    names its parts is their weighted sum. Without it, a run cannot weigh the parts itself. `longest_text`, `alphabet`:
    the most characters of an observation, and which they may be, for whoever declares its space beforehand
    (Gymnasium)."""

    name: str
    one_line: str
    system_prompt: str
    action_regex: str  # full match of a well-formed answer: the grammar for guided decoding
    horizon: int  # most turns of an episode
    best_return: float
    best_success: float
    supports_scratchpad: bool = False
    image: bool = False
    failure_return: float | None = None
    policy_opponent: bool = False
    reward_parts: Mapping[str, RewardPart] = field(default_factory=dict)
    longest_text: int = 4096
    alphabet: str = string.printable
    extra: Mapping[str, Any] = field(default_factory=dict)


class Env(ABC):
    """One game. All randomness comes from a private `random.Random(seed)`: same seed and actions, same episode."""

    spec: EnvSpec
    settings: ClassVar[tuple[str, ...]] = ()
    blocking: ClassVar[bool] = False  # its calls wait (a simulator, HTTP): rollouts run them in a thread of its own
    isolated: ClassVar[bool] = False  # it may hang or crash (foreign code): rollouts play it in a process of its own

    @abstractmethod
    def reset(self, seed: int) -> Observation:
        """Starts the episode of a seed (any integer)."""

    @abstractmethod
    def step(self, action: str) -> StepResult:
        """Plays the policy's answer. A malformed answer is data (`info["parse_ok"]` is False), never an exception.

        Raises EpisodeOver after the end, and before `reset`.
        """

    def opponent_observation(self) -> Observation | None:
        """What the other player sees when it is to move, else None. Only games with `spec.policy_opponent` ask: between
        a `step` and the next one, whoever plays such a game gives the other player's answers to `opponent_step`."""
        return None

    def opponent_step(self, action: str) -> StepResult:
        """Plays the other player's answer. The result (observation, reward, end, outcome) is the first player's;
        `illegal` tells that the answer was malformed or forbidden. Raises OpponentNotToMove when it is not its turn."""
        raise OpponentNotToMove(f"{type(self).__name__} waits for no other player")

    @abstractmethod
    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """The scripted expert's next answer. `noise` is the share of actions drawn from the allowed ones,
        `illegal_noise` the share drawn from all actions, allowed or not."""

    def render(self) -> np.ndarray | None:
        """The whole state as an HxWx3 uint8 image; None for an environment without pictures."""
        return None

    def close(self) -> None:
        """Frees what the environment holds. Most environments hold nothing."""
        return


def takes_setting(cls: Callable[..., Env], name: str) -> bool:
    """Whether the constructor has a parameter of this name, or takes any (`**settings`)."""
    parameters = inspect.signature(cls).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_settings(cls: Callable[..., Env], settings: Mapping[str, Any]) -> None:
    """Raises SettingError for a keyword that the constructor does not take."""
    known = [name for name in inspect.signature(cls).parameters if name != "self"]
    for name in settings:
        if not takes_setting(cls, name):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SettingError(f"{cls.__name__} has no setting {name!r}.{hint} Settings: {', '.join(known) or 'none'}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def is_heldout(key: str) -> bool:
    """Whether a situation belongs to the held-out split: a stable hash, the same on every machine.

    >>> is_heldout("a") == is_heldout("a")
    True
    """
    return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % HELDOUT_SHARE == 0


def in_split(key: str, split: Split) -> bool:
    return split == "all" or is_heldout(key) == (split == "heldout")
