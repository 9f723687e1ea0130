"""Environments of the library verifiers as ours: `verifiers:NAME`, what its `load_environment` knows.

Their rollout asks a model for answers; here it is turned around: it runs in an event loop of its own until it asks,
the question is the observation, and `step` gives the answer. So single turns, several turns and whatever else a rollout
does between them are the library's own. Written for verifiers 0.1.14, and imported when an environment is made.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import Env, EnvSpec, EnvUsageError, EpisodeOver, Observation, SettingError, StepResult, in_split
from envs.bridges.rubrics import Raised
from envs.randomness import OwnRandom

MOST_TURNS = 100  # of an environment that names none
MODEL = "rayward"
RAISED = Raised()  # by reward functions, of the rollout that is scored
Chat = list[tuple[str, str]]  # (role, text)


class VerifiersEnv(Env):
    """One environment of verifiers: a row of its dataset by the seed, its rubric's reward at the end.

    Settings: `split` all | train | heldout: the dataset, and of one without an evaluation set of its own an eighth of
    the rows; `success_reward`, from which on an episode is a success (None: the environment's `pass_threshold`, 0.5
    by default); `best_return` that can be reached; `expert`, how the scripted expert writes a row, "{answer}" or
    "<answer>{answer}</answer>". Every other setting goes to `load_environment`.

    `info["parse_ok"]` is whether the environment's parser finds an answer, `info["rewards"]` the functions of its
    rubric before they are weighted. What the environment says between two turns reaches the policy as one user message.
    """

    isolated = True  # the library takes the process's signals and runs an event loop

    def __init__(
        self,
        name: str,
        /,
        split: str = "all",
        success_reward: float | None = None,
        best_return: float | None = None,
        expert: str = "{answer}",
        **arguments: Any,
    ) -> None:
        """Raises EnvUsageError without verifiers or the environment, or for one that cannot be played, SettingError."""
        if split not in ("all", "train", "heldout"):
            raise SettingError(f"split must be one of all, train, heldout; got {split!r}")
        self._theirs = env = _loaded(name, json.dumps(arguments, sort_keys=True))
        if getattr(env, "requires_group_rollouts", False):
            raise EnvUsageError(f"verifiers:{name} scores several answers together, which this adapter does not")
        self._rows, self._indices = _rows(env, split)
        self._expert = expert
        self._rollout: _Rollout | None = None
        turns = getattr(env, "max_turns", -1)
        threshold = getattr(env, "pass_threshold", 0.5)
        self._success_reward = threshold if success_reward is None else success_reward
        self.spec = EnvSpec(
            name=f"verifiers:{name}",
            one_line=f"verifiers' {name}",
            system_prompt="",  # the rows bring theirs
            action_regex=r"(?s).+",
            horizon=turns if turns > 0 else MOST_TURNS,
            best_return=math.nan if best_return is None else best_return,
            best_success=1.0,
        )

    def reset(self, seed: int) -> Observation:
        self.close()
        draw = random.Random(f"verifiers/{seed}")
        self._row = dict(self._rows[self._indices[draw.randrange(len(self._indices))]])
        self._rollout = rollout = _Rollout(self._theirs, self._row, OwnRandom(draw.getrandbits(32)), self.spec.name)
        if rollout.advance() is not None:
            raise RuntimeError(f"{self.spec.name} ended before it asked for an answer: {_end(rollout)}")
        self._chat = rollout.asked
        return Observation(self._chat[-1][1], earlier=tuple(self._chat[:-1]))

    def step(self, action: str) -> StepResult:
        rollout = self._rollout
        if rollout is None or rollout.state is not None:
            raise EpisodeOver("the episode is over: call reset")
        found = self._finds(action)
        state = rollout.answer(action)
        info: dict[str, Any] = {"parse_ok": found, "illegal": not found}
        if state is None:
            return StepResult(self._said(action), 0.0, False, False, False, info)
        if state.get("error") is not None:
            raise RuntimeError(f"{self.spec.name} failed: {state['error']!r}")
        reward = float(state["reward"])
        truncated = state.get("stop_condition") == "max_turns_reached" and self.spec.horizon > 1
        info["rewards"] = {key: float(value) for key, value in (state.get("metrics") or {}).items()}
        success = reward >= self._success_reward
        return StepResult(Observation("The episode is over."), reward, not truncated, truncated, success, info)

    def _finds(self, action: str) -> bool:
        """Whether their parser finds an answer. One that raises has found none."""
        try:
            return self._theirs.parser.parse_answer([{"role": "assistant", "content": action}]) is not None
        except Exception:
            return False

    def _said(self, action: str) -> Observation:
        """What the environment added to the chat. Raises EnvUsageError for one that rewrites it."""
        assert self._rollout is not None
        before, asked = [*self._chat, ("assistant", action)], self._rollout.asked
        if asked[: len(before)] != before or len(asked) == len(before):
            raise EnvUsageError(f"{self.spec.name} rewrites the chat between its turns, which this adapter does not")
        self._chat = asked
        return Observation("\n\n".join(text for _, text in asked[len(before) :]))

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """The row in the form of the setting `expert`; for the noise of both kinds, another row's."""
        row = self._row
        if rng.random() < noise + illegal_noise:
            row = dict(self._rows[self._indices[rng.randrange(len(self._indices))]])
        try:
            return self._expert.format(**row)
        except KeyError as error:
            raise SettingError(f"expert: the rows have {', '.join(row)}, and no {error}") from error

    def close(self) -> None:
        """Ends the rollout. The environment stays loaded: the next episodes of this process play it."""
        if self._rollout is not None:
            self._rollout.close()
            self._rollout = None


class _Rollout:
    """One rollout of theirs, in an event loop of its own. `asked`: the chat of its last question; `state`: theirs, once
    it has ended and was scored."""

    def __init__(self, env: Any, row: Mapping[str, Any], own: OwnRandom, name: str) -> None:
        if asyncio._get_running_loop() is not None:
            raise EnvUsageError(f"{name} runs an event loop of its own: set env.isolation to process")
        self.asked: Chat = []
        self.state: Any = None
        self._own, self._loop = own, asyncio.new_event_loop()
        self._asking, self._name = asyncio.Event(), name
        self._answered: asyncio.Future[str] | None = None
        self._task = self._loop.create_task(self._played(env, dict(row), _client(self._ask)))

    async def _played(self, env: Any, row: dict[str, Any], client: Any) -> Any:
        state = await env.rollout(row, client, MODEL, {})
        if state.get("error") is None:  # else there is no answer to be scored
            RAISED.clear()
            await env.rubric.score_rollout(state)
            if RAISED.errors:
                state["error"] = RuntimeError(f"the rubric could not score: {'; '.join(RAISED.errors)}")
        await env.rubric.cleanup(state)
        return state

    async def _ask(self, prompt: Sequence[Any], tools: Sequence[Any] | None) -> str:
        if tools:
            raise EnvUsageError(f"{self._name} gives the policy tools, which this adapter does not")
        if self._answered is not None:
            raise EnvUsageError(f"{self._name} asks for several answers at a time, which this adapter does not")
        self.asked = [_message(message) for message in prompt]
        self._answered = asyncio.get_running_loop().create_future()
        self._asking.set()
        answer = await self._answered
        self._answered = None
        return answer

    def answer(self, text: str) -> Any:
        assert self._answered is not None
        self._asking.clear()
        self._answered.set_result(text)
        return self.advance()

    def advance(self) -> Any:
        """Runs until the next question (None), or to the end: their state."""
        with self._own.lent():
            self.state = self._loop.run_until_complete(self._until_asked())
        return self.state

    async def _until_asked(self) -> Any:
        asking = asyncio.create_task(self._asking.wait())
        await asyncio.wait({self._task, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        return self._task.result() if self._task.done() else None

    def close(self) -> None:
        self._task.cancel()
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._loop.close()


def _end(rollout: _Rollout) -> str:
    return repr(rollout.state.get("error") or rollout.state.get("stop_condition"))


@functools.lru_cache(maxsize=4)
def _loaded(name: str, arguments: str) -> Any:
    """Their environment; loaded once in a process, with its dataset. `arguments`: JSON."""
    try:
        import verifiers
    except ModuleNotFoundError as error:
        raise EnvUsageError(
            f"verifiers:{name} needs the library verifiers ({error}). Give it an environment of its own: set "
            "env.packages: ['verifiers<0.2', THE-ENVIRONMENTS-PACKAGE], or env.python to an interpreter that has them"
        ) from error
    if not hasattr(verifiers, "load_environment"):
        raise EnvUsageError(
            f"verifiers {getattr(verifiers, '__version__', '')} has no load_environment: its newer interface runs the "
            "policy behind a server, which this adapter does not. Install 'verifiers<0.2'"
        )
    try:
        env = verifiers.load_environment(name, **json.loads(arguments))
        RAISED.watch(env.rubric)
        return env
    except Exception as error:  # whatever somebody else's package raises
        reason = f"{type(error).__name__}: {error}"
        raise EnvUsageError(f"verifiers:{name} cannot be loaded with {arguments}: {reason}") from error


def _rows(env: Any, split: str) -> tuple[Any, list[int]]:
    """(their dataset, the indices of the split)."""
    if split == "heldout" and getattr(env, "eval_dataset_source", None) is not None:
        rows = env.get_eval_dataset()
        return rows, list(range(len(rows)))
    rows = env.get_dataset()
    own = getattr(env, "eval_dataset_source", None) is not None
    return rows, [index for index in range(len(rows)) if own or in_split(f"verifiers/{index}", split)]  # type: ignore[arg-type]


def _message(message: Any) -> tuple[str, str]:
    """(role, text) of a message of theirs. Raises EnvUsageError for one that is not all text."""
    fields = message if isinstance(message, Mapping) else vars(message)
    content = fields.get("content")
    parts = [content] if isinstance(content, str) else content or []
    texts = [part if isinstance(part, str) else _part(part) for part in parts]
    return str(fields.get("role")), "".join(texts)


def _part(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) else getattr(part, "text", None)
    if not isinstance(text, str):
        raise EnvUsageError(f"a message with {part!r:.80}: this adapter takes text only")
    return text


def _client(ask: Any) -> Any:
    """A client of theirs whose answers come from `ask(prompt, tools)`."""
    from verifiers.clients import Client
    from verifiers.types import Response, ResponseMessage

    async def get_response(self: Any, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **_: Any) -> Any:
        text = await ask(prompt, tools)
        message = ResponseMessage(content=text, finish_reason="stop", is_truncated=False)
        return Response(id="", created=0, model=model, message=message)

    async def nothing(self: Any, *_: Any, **__: Any) -> None:
        return None

    unused = dict.fromkeys(Client.__abstractmethods__, nothing)
    return type("Asking", (Client,), {**unused, "get_response": get_response})(None)
