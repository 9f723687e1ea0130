"""The other player of a game for two, when its moves come from a policy (self-play)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from deployments.protocol.generate import GenerateResult
from envs.base import StepResult
from training.environments.calls import EnvCalls
from training.rendering.conversation import Conversation

Ask = Callable[[Conversation], Awaitable[GenerateResult]]


class Opponent:
    """The other player of one episode. It sees the game through a conversation of its own, with the same history
    strategy; nothing of it is trained on."""

    def __init__(
        self,
        calls: EnvCalls,
        ask: Ask,
        decode: Callable[[list[int]], str],
        conversation: Conversation,
        weighed: Callable[[StepResult], StepResult],
    ):
        """`weighed`: a step with its reward as the run weighs the parts."""
        self._calls, self._ask, self._decode, self._conversation = calls, ask, decode, conversation
        self._weighed = weighed
        self._said: tuple[list[int], str] | None = None  # its last answer: (ids, text)

    async def replied(self, result: StepResult) -> StepResult:
        """The first player's result after the other player's moves, until the first one is to move or the game is over.

        Waits for: the policy's answers. Raises PolicyError and EnvCallFailed.
        """
        while not (result.terminated or result.truncated):
            observation = await self._calls.opponent_observation()
            if observation is None:
                return result
            if self._said is None:
                self._conversation.start(observation)
            else:
                self._conversation.next(*self._said, observation)
            answer = await self._ask(self._conversation)
            self._said = answer.token_ids, self._decode(answer.token_ids)
            result = joined(result, self._weighed(await self._calls.opponent_step(self._said[1])))
        return result


def joined(own: StepResult, reply: StepResult) -> StepResult:
    """The first player's step and the other's reply as one step of the first: the rewards add up, observation and end
    are the reply's, and whether an answer was well-formed and legal is told of the first player's own."""
    info = {**own.info, **reply.info}
    for name in ("parse_ok", "illegal", "illegal_move"):
        if name in own.info:
            info[name] = own.info[name]
    parts = [dict(result.info.get("rewards", {})) for result in (own, reply)]
    if any(parts):
        names = {name: None for part in parts for name in part}
        info["rewards"] = {name: sum(part.get(name, 0.0) for part in parts) for name in names}
    return replace(reply, reward=own.reward + reply.reward, info=info)
