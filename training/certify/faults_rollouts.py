"""Faults between the environment and the batch."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from training.certify.mutants import Mutant
from training.certify.rough import flaky_replies, hostile_observations
from training.certify.swapping import swapped
from training.environments import calls
from training.rendering.conversation import Conversation
from training.rendering.renderer import ChatRenderer
from training.rollouts import batch, episode, group, samples, worker
from training.types import Episode, Group, Sample, Task, Turn

Fault = AbstractContextManager[None]


def answers_left_out() -> Fault:
    """What is sent is a chat without the earlier answers, as of a template that shows them otherwise; what is trained
    on is the chat with them."""

    def shortened(original: Any) -> Any:
        def following(self: Conversation, *arguments: Any) -> tuple[int, ...]:
            before = self.prompt
            original(self, *arguments)
            if self.extends:
                self.prompt = (*before, *self.added)
            return self.prompt

        return following

    return swapped(Conversation, "next", shortened)


@contextmanager
def forged_turns() -> Iterator[None]:
    """Observations that hold the text of control tokens, and a renderer that lets them."""
    with hostile_observations(), swapped(ChatRenderer, "_disarm", lambda original: lambda self, key: (key, {})):
        yield


def mask_shifted() -> Fault:
    def shifted(made: Sample, run: list[Turn]) -> Sample:
        mask = (0, *made.mask_T[:-1])
        return replace(made, mask_T=mask) if any(mask) else made

    return _sampled(shifted)


def end_of_turn_masked() -> Fault:
    def without_ends(made: Sample, run: list[Turn]) -> Sample:
        mask, position = list(made.mask_T), 0
        for turn in run:
            position += len(turn.added_ids) + len(turn.completion_ids)
            if len(turn.completion_ids) > 1:
                mask[position - 1] = 0
        return replace(made, mask_T=tuple(mask))

    return _sampled(without_ends)


def _sampled(change: Callable[[Sample, list[Turn]], Sample]) -> Fault:
    return swapped(samples, "sample", lambda original: lambda run, *rest: change(original(run, *rest), list(run)))


def end_of_turn_cut() -> Fault:
    def cut(original: Any) -> Any:
        def turn(conversation: Any, answer: Any, *rest: Any) -> Turn:
            made: Turn = original(conversation, answer, *rest)
            if made.finish_reason != "stop" or len(made.completion_ids) < 2:
                return made
            return replace(made, completion_ids=made.completion_ids[:-1], logprobs=made.logprobs[:-1])

        return turn

    return swapped(episode, "_turn", cut)


def neighbours_advantages() -> Fault:
    """Every group gets the advantages of the one before it."""

    def of_neighbour(original: Any) -> Any:
        before: list[Any] = []

        def places(group_: Any, index: int, advantages: Any, *rest: Any) -> Any:
            given = before.pop() if before else advantages
            before.append(advantages)
            return original(group_, index, given, *rest)

        return places

    return swapped(batch, "_places", of_neighbour)


def siblings_apart() -> Fault:
    """Every episode has a seed of its own."""
    counter = itertools.count()

    def seeded(original: Any) -> Any:
        def init(self: Any, name: str, seed: int, *rest: Any) -> None:
            original(self, name, seed + next(counter), *rest)

        return init

    return swapped(calls.EnvCalls, "__init__", seeded)


def shared_noise() -> Fault:
    def same(original: Any) -> Any:
        return lambda settings, task, sibling, turn, who="": random.Random(f"{task}/{turn}").getrandbits(32)

    return swapped(episode, "request_seed", same)


@contextmanager
def failures_scored() -> Iterator[None]:
    def scored(original: Any) -> Any:
        async def run(*arguments: Any) -> Episode:
            played: Episode = await original(*arguments)
            return played if played.ok or not played.turns else replace(played, end="completed", error="")

        return run

    with flaky_replies(), swapped(group, "run_episode", scored):
        yield


@contextmanager
def groups_shrunk() -> Iterator[None]:
    """A group is trained on without the siblings that failed."""

    def shrunk(original: Any) -> Any:
        counter = itertools.count(1)

        async def run(player: Any, task: Task, size: int) -> Group:
            whole: Group = await original(player, task, size)
            return Group(task, whole.episodes[1:]) if size > 1 and next(counter) % 3 == 0 else whole

        return run

    with swapped(worker, "run_group", shrunk):
        yield


def rewards_not_checked() -> Fault:
    counter = itertools.count(1)
    return swapped(
        calls,
        "finite_reward",
        lambda original: lambda reward: math.nan if next(counter) % 5 == 0 else float(reward),
    )


def cut_short_pays() -> Fault:
    return swapped(
        episode._Playing,
        "_cut_short",
        lambda original: lambda self, spec, limit: self.ended("truncated", truncation=limit),
    )


ROLLOUTS = (
    Mutant(
        "template not prefix-preserving",
        "the chat that is sent shows earlier answers otherwise than the sequence that is trained on",
        "log-probabilities of answers to prompts that nobody sent",
        answers_left_out,
        settings=("env.history=full",),
        sources=("huggingface/trl#5224", "verl-project/verl#6854"),
        caught_by=("agreement",),
    ),
    Mutant(
        "injected control tokens",
        "text of an observation becomes the end of a turn and the beginning of another",
        "an environment, or a user, that speaks as the policy",
        forged_turns,
        sources=("huggingface/transformers#29279", "PrimeIntellect-ai/renderers#116"),
        caught_by=("control tokens",),
    ),
    Mutant(
        "mask shifted by one",
        "the loss is taken over the token behind each chosen one",
        "slower learning, and of the template's tokens",
        mask_shifted,
        sources=("huggingface/trl#4975", "PeterGriffinJin/Search-R1#21"),
        caught_by=(
            "trained tokens",
            "agreement",
        ),
    ),
    Mutant(
        "end of turn masked",
        "the last token of an answer has no loss",
        "answers that get longer and longer",
        end_of_turn_masked,
        sources=("NVIDIA-NeMo/Megatron-Bridge#4660", "huggingface/trl#1623"),
        caught_by=("trained tokens",),
    ),
    Mutant(
        "end of turn cut off",
        "the token that ended an answer is dropped before anything looks at it",
        "answers that get longer and longer",
        end_of_turn_cut,
        sources=("huggingface/trl#4974",),
        caught_by=("end of turn",),
        # Random weights end about one answer in sixty by themselves at the usual five tokens: in some runs, none.
        settings=("sampling.max_tokens=24",),
    ),
    Mutant(
        "advantages of another group",
        "each group's sequences have the advantages of the group before it",
        "a loss that moves and a return that does not",
        neighbours_advantages,
        sources=("StarsfieldAI/R1-V#67", "XU-YIJIE/grpo-flat#2"),
        caught_by=("advantages",),
    ),
    Mutant(
        "sibling seeds that differ",
        "the episodes of a group play different situations",
        "advantages that reward an easy situation",
        siblings_apart,
        sources=("huggingface/OpenEnv#1078",),
        caught_by=("sibling starts",),
    ),
    Mutant(
        "siblings share sampling noise",
        "all siblings ask with the same random numbers",
        "many groups without spread; it looks like a policy that has converged",
        shared_noise,
        sources=("verl-project/verl#6857", "NVIDIA-NeMo/RL#171"),
        caught_by=("sibling answers",),
    ),
    Mutant(
        "failure scored as zero",
        "an episode whose replica failed is trained on as it stands",
        "a policy that avoids what is slow or likely to fail",
        failures_scored,
        sources=("rllm-org/rllm#710", "NVIDIA-NeMo/RL#3201"),
        caught_by=("environment's books",),
    ),
    Mutant(
        "group shrunk",
        "a group is trained on without the siblings that failed",
        "baselines over fewer episodes, of those that did not fail",
        groups_shrunk,
        sources=("NVIDIA-NeMo/labs-molt#48", "areal-project/AReaL#1416"),
        caught_by=("whole groups",),
    ),
    Mutant(
        "non-finite reward",
        "an environment's NaN goes on into the batch",
        "weights that are NaN some steps later",
        rewards_not_checked,
        sources=("modelscope/ms-swift#8123",),
        caught_by=("finite numbers",),
    ),
    Mutant(
        "cut short pays more than lost",
        "an episode that ends by its cap on turns keeps what it had",
        "episodes that get longer until all end by the cap",
        cut_short_pays,
        settings=("env.max_turns=2",),
        sources=("arXiv:2503.14476", "huggingface/trl#3248"),
        caught_by=("cut short",),
    ),
)
