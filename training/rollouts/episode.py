"""Playing episodes: plain asyncio, no ray. The single place where an episode may fail.

An episode ends as exactly one of completed | truncated | env_failed | infra_failed. A failure never becomes a reward:
`run_group` plays the sibling again, with a fresh environment and the same seed, until the group is complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from dataclasses import replace
from functools import partial

from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateRequest, GenerateResult
from envs.base import EnvSpec, Observation, StepResult
from training.environments.calls import EnvCallFailed, EnvCalls, Noted
from training.rendering.conversation import Conversation
from training.rollouts.judge import JudgeFailed
from training.rollouts.opponents import Opponent
from training.rollouts.player import Player, PlaySettings
from training.rollouts.rewards import Payment
from training.types import EndReason, Episode, Task, Truncation, Turn


def request_seed(settings: PlaySettings, task: Task, sibling: int, turn: int, who: str = "") -> int | None:
    """A seed of one request that depends on where it stands, never on timing or retries."""
    if not settings.seeded:
        return None
    key = f"{settings.seed}/{settings.evaluation}/{task.env}/{task.seed}/{task.index}/{sibling}{who}/{turn}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little")


async def run_episode(player: Player, task: Task, sibling: int, attempt: int = 0) -> Episode:
    """Plays one episode, and has it judged. What goes wrong is in the episode's `end` and `error`. Raises UserError for
    what no retry can mend (a history or content that cannot be rendered)."""
    run = _Playing(player, task, sibling, attempt)
    episode = await run.judged(await _played(run, player))
    player.hooks.count(f"episodes_{episode.end}")
    if episode.truncation is not None:
        player.hooks.count(f"truncated_{episode.truncation}")
    return episode


async def _played(run: _Playing, player: Player) -> Episode:
    try:
        async with asyncio.timeout(player.settings.rollout.episode_deadline_s):
            return await run.play()
    except EnvCallFailed as error:
        return run.ended("env_failed", error=str(error))
    except PolicyError as error:
        if error.retryable:
            return run.ended("infra_failed", error=str(error))
        never = f"{error} (a request of this run can never succeed)"
        return run.ended("infra_failed", error=never, retryable=False)
    except TimeoutError:
        limit_s = player.settings.rollout.episode_deadline_s
        return run.ended("infra_failed", error=f"deadline_exceeded: the episode took more than {limit_s:g} s")


class _Playing:
    """One episode while it is played."""

    def __init__(self, player: Player, task: Task, sibling: int, attempt: int) -> None:
        self._player, self._settings, self._task = player, player.settings, task
        self._sibling, self._attempt = sibling, attempt
        self._began = time.perf_counter()
        self._turns: list[Turn] = []
        self._pay, self._noted = Payment(None, None), Noted()

    async def play(self) -> Episode:
        player, env_settings = self._player, self._settings.env
        calls = EnvCalls(
            self._task.env,
            self._task.seed,
            player.hooks,
            player.blocking,
            env_settings.step_timeout_s,
            player.processes,
        )
        try:
            env = await calls.make(player.make_env, env_settings.kwargs)
            self._pay = pay = Payment.of(env.spec, self._settings.reward)
            key = (self._task, self._sibling, self._attempt)
            self._noted = self._player.hooks.books[key] = Noted(calls.books, pay.failure_return, pay.weights)
            conversation = Conversation(self._settings.env, env.spec, self._player.renderer)
            opponent = self._opponent(calls, env.spec, pay) if env.spec.policy_opponent else None
            observation = await calls.reset()
            conversation.start(observation)
            for _ in range(self._settings.env.max_turns):
                if len(conversation.prompt) + self._settings.sampling.max_tokens > self._settings.max_model_len:
                    return self._out_of_room(pay)
                answer = await self._answer(conversation)
                text = self._player.renderer.decode(answer.token_ids)
                result = pay.weighed(await calls.step(text))
                if opponent is not None:
                    result = await opponent.replied(result)
                self._turns.append(_turn(conversation, answer, text, observation, result))
                if result.terminated or result.truncated:
                    return self._over(result)
                observation = result.observation
                conversation.next(answer.token_ids, text, observation)
            return self._cut_short(pay, "turn_cap")
        finally:
            await calls.close()

    def _opponent(self, calls: EnvCalls, spec: EnvSpec, pay: Payment) -> Opponent:
        """Plays with the policy's newest weights, or a past version's."""
        player = self._player
        conversation = Conversation(self._settings.env, spec, player.renderer)
        ask = partial(self._answer, who="opponent")
        return Opponent(calls, ask, player.renderer.decode, conversation, pay.weighed)

    async def judged(self, episode: Episode) -> Episode:
        """With the judge's verdict. A failed episode has none, nor one that counts as lost because a limit of ours
        ended it: with any score it would be paid less than some lost one, or more."""
        judge = self._player.judge
        lost = self._counts_as_lost(self._pay) and episode.truncation in ("turn_cap", "context_full")
        if judge is None or not episode.ok or lost:
            return episode
        try:
            score = await judge(episode)
        except JudgeFailed as error:
            self._player.hooks.count(f"judge_failed_{error.reason}")
            return self.ended("infra_failed", error=str(error), retryable=error.retryable)
        self._noted.books.judged = self._pay.judge_weight * score
        return replace(episode, turns=self._pay.with_verdict(episode.turns, score))

    def _counts_as_lost(self, pay: Payment) -> bool:
        return self._settings.env.cut_short == "failed" and pay.failure_return is not None

    async def _answer(self, conversation: Conversation, who: str = "") -> GenerateResult:
        """`who` asks: nobody, or the opponent. Raises PolicyError; also for an answer whose log-probabilities are no
        numbers, which nothing may train on."""
        settings, session, turn = self._settings, f"{self._task.index}-{self._sibling}{who}", len(self._turns)
        renderer, generate, min_version = self._player.renderer, self._player.generate, settings.min_weight_version
        if who and self._player.past is not None:
            generate, min_version = self._player.past.generate, self._player.past.min_weight_version
        sampling = replace(
            settings.sampling,
            seed=request_seed(settings, self._task, self._sibling, turn, who),
            stop_token_ids=renderer.stop_ids,
            banned_token_ids=renderer.banned_ids,
        )
        answer = await generate(
            GenerateRequest(
                request_id=f"{session}-{turn}-{self._attempt}-{min_version}-{id(self):x}",
                token_ids=conversation.prompt,
                images=conversation.images,
                sampling=sampling,
                session_id=session,
                min_weight_version=min_version,
                deadline_s=settings.rollout.request_deadline_s,
            )
        )
        if not all(map(math.isfinite, answer.logprobs)):
            self._player.hooks.count("answers_nonfinite_logprobs")
            raise PolicyError("engine_failed", "the answer has log-probabilities that are not finite")
        return answer

    def _over(self, result: StepResult) -> Episode:
        outcome = str(result.info.get("outcome", ""))
        if result.terminated:
            return self.ended("completed", success=result.success, outcome=outcome)
        return self.ended("truncated", success=result.success, outcome=outcome, truncation="environment")

    def _cut_short(self, pay: Payment, truncation: Truncation) -> Episode:
        """Ended by a limit of ours. A policy must not gain by reaching one instead of losing."""
        gained = sum(turn.reward for turn in self._turns)
        if self._counts_as_lost(pay) and pay.failure_return is not None:
            last = self._turns[-1]
            self._turns[-1] = replace(last, reward=last.reward + min(0.0, pay.failure_return - gained))
        return self.ended("truncated", truncation=truncation)

    def _out_of_room(self, pay: Payment) -> Episode:
        if self._turns:
            return self._cut_short(pay, "context_full")
        raise PolicyError(
            "too_large", f"the first prompt of {self._task.env} does not fit engine.max_model_len: raise it"
        )

    def ended(
        self,
        end: EndReason,
        *,
        success: bool = False,
        outcome: str = "",
        error: str = "",
        truncation: Truncation | None = None,
        retryable: bool = True,
    ) -> Episode:
        return Episode(
            task=self._task,
            sibling=self._sibling,
            turns=tuple(self._turns),
            end=end,
            success=success,
            outcome=outcome,
            error=error,
            retries=self._attempt,
            episode_s=time.perf_counter() - self._began,
            truncation=truncation,
            retryable=retryable,
        )


def _turn(
    conversation: Conversation, answer: GenerateResult, text: str, observation: Observation, result: StepResult
) -> Turn:
    return Turn(
        added_ids=conversation.added,
        completion_ids=tuple(answer.token_ids),
        logprobs=tuple(answer.logprobs),
        weight_version=answer.weight_version,
        reward=result.reward,
        finish_reason=answer.finish_reason,
        text=text,
        parse_ok=bool(result.info.get("parse_ok", True)),
        illegal=bool(result.info.get("illegal", False)),
        prompt_text=observation.text,
        extends=conversation.extends,
        reward_parts=dict(result.info.get("rewards", {})),
        images=conversation.added_images,
    )
