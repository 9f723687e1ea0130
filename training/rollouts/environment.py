"""Whether the configured environment can be played, before anything starts that takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any

from configs.base import UserError
from configs.training import TrainConfig
from envs import registry
from envs.base import Env, EnvSpec, EnvUsageError, Observation
from envs.history import make_history
from training.environments.packages import interpreter_of
from training.environments.processes import isolation_of, opened
from training.rollouts.rewards import Payment

CALLS = 4  # of an environment, at most, when it is tried: it is made, and reset three times


class EnvironmentUnusable(UserError):
    """The environment raised when it was made or reset; the message holds its settings and its error."""


def check_environment(config: TrainConfig, say: Callable[[str], None]) -> None:
    """Makes and resets the environment with the settings of training and with those of evaluation, where it will play.
    Says when evaluation has no situations of its own, and when an environment of another library ignores its seed.

    Raises EnvUsageError for an unknown environment or setting, UnknownRewardPart for a weight of a part that the reward
    does not have, EnvironmentUnusable for what the environment itself raises and for past versions without a side.
    """
    env = config.env
    evaluation = registry.evaluation_settings(env.name, env.kwargs, env.eval_kwargs)
    for purpose, settings in (("training", env.kwargs), ("evaluation", evaluation)):
        spec = _try(config, env.name, settings, purpose, say)
    for stage in [] if config.curriculum is None else config.curriculum.names:
        _try_stage(config, stage, spec, say)
    _say_stages_not_held_out(config, evaluation, say)
    if evaluation.get("split") == "heldout" and env.kwargs.get("split", "all") == "all":
        say(
            f"environment {env.name}: training plays all situations, also those of the evaluation (split heldout), "
            "which is not held out then. Set env.kwargs.split=train"
        )
    if env.eval_kwargs is None and evaluation == env.kwargs:
        say(
            f"environment {env.name} has no setting 'split': evaluation plays the same situations as training, with "
            f"seeds from {config.evaluation.first_seed} on. env.eval_kwargs lays other settings over"
        )


def _try_stage(config: TrainConfig, stage: str, evaluated: EnvSpec, say: Callable[[str], None]) -> None:
    """A stage of the curriculum, beside the environment that is evaluated. Raises EnvironmentUnusable."""
    assert config.curriculum is not None
    env = config.curriculum.env_of(config.env, stage)
    if env.name != config.env.name and env.system_prompt:
        raise EnvironmentUnusable(
            f"stage {stage} of the curriculum plays {env.name}, and env.system_prompt was written for "
            f"{config.env.name}: the policy would read the rules of another game. Leave env.system_prompt out, and "
            "each environment has its own"
        )
    played = config.model_copy(update={"env": env})
    try:
        spec = _try(played, env.name, env.kwargs, f"stage {stage}", say)
    except (EnvUsageError, UserError) as error:
        raise EnvironmentUnusable(f"stage {stage} of the curriculum: {error}") from error
    if isolation_of(env) != isolation_of(config.env):
        raise EnvironmentUnusable(
            f"stage {stage} of the curriculum plays {env.name} with isolation {isolation_of(env)}, and "
            f"{config.env.name} plays with {isolation_of(config.env)}: a rollout worker has one. Set env.isolation "
            "for both"
        )
    if spec.image and not evaluated.image:
        raise EnvironmentUnusable(
            f"stage {stage} of the curriculum shows pictures, and {config.env.name} does not: the policy is one that "
            "reads text alone. Leave the stage out, or train in an environment with pictures"
        )


def _say_stages_not_held_out(config: TrainConfig, evaluation: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Says which stages train on situations that the evaluation holds out by its split."""
    if config.curriculum is None or evaluation.get("split") != "heldout":
        return
    for stage in config.curriculum.stages:
        env = config.curriculum.env_of(config.env, stage.name)
        if env.name == config.env.name and "split" in stage.kwargs and stage.kwargs["split"] in ("all", "heldout"):
            say(
                f"stage {stage.name} of the curriculum trains on situations of the evaluation (split heldout), which "
                "is not held out then. Set its kwargs.split=train"
            )


def _try(
    config: TrainConfig, name: str, settings: Mapping[str, Any], purpose: str, say: Callable[[str], None]
) -> EnvSpec:
    """What `_tried` does, with an end: an environment that hangs is left behind in its thread."""
    interpreter_of(config.env)  # installing packages has a deadline of its own
    outcome: Future[EnvSpec] = Future()

    def run() -> None:
        try:
            outcome.set_result(_tried(config, name, settings, purpose, say))
        except BaseException as error:
            outcome.set_exception(error)

    limit_s = CALLS * config.env.step_timeout_s
    Thread(target=run, daemon=True, name=f"check of {name}").start()
    try:
        return outcome.result(limit_s)
    except TimeoutError as error:
        if outcome.done():
            raise  # the environment's own
        raise EnvironmentUnusable(
            f"environment {name} has not started for {purpose} within {limit_s:g} s with settings {dict(settings)}: it "
            f"hangs, or env.step_timeout_s ({config.env.step_timeout_s:g}) is too short for it"
        ) from error


def _tried(
    config: TrainConfig, name: str, settings: Mapping[str, Any], purpose: str, say: Callable[[str], None]
) -> EnvSpec:
    seed = config.evaluation.first_seed if purpose == "evaluation" else config.seed
    try:
        made = opened(config.env, settings)
        try:
            make_history(config.env.history, made.spec)
            Payment.of(made.spec, config.reward)
            if purpose == "training":
                _check_opponents(config, made.spec)
            first = made.reset(seed)
            if purpose == "training" and registry.is_adapted(name):
                _check_seeds(made, first, seed, say)
            return made.spec
        finally:
            made.close()
    except (EnvUsageError, UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever a user's class raises is told with what it was given
        raise EnvironmentUnusable(
            f"environment {name} cannot be started for {purpose} with settings {dict(settings)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_opponents(config: TrainConfig, spec: EnvSpec) -> None:
    """Raises EnvironmentUnusable for past versions that would play no side: a replica would serve them for nothing."""
    if config.self_play.past_share and not spec.policy_opponent:
        raise EnvironmentUnusable(
            f"self_play.past_share is {config.self_play.past_share:g}, and in environment {spec.name} with settings "
            f"{dict(config.env.kwargs)} no policy plays another side. Let one play it, where the environment can "
            "(tictactoe: env.kwargs.opponent=policy), or set self_play.past_share=0"
        )


def _check_seeds(env: Env, first: Observation, seed: int, say: Callable[[str], None]) -> None:
    """Of the environments of other libraries nobody has tested that the seed decides: it is tried, with two resets."""
    again, another = _shown(env.reset(seed)), _shown(env.reset(seed + 1))
    if again != _shown(first):
        say(
            f"environment {env.spec.name} ignores its seed: two resets with seed {seed} began differently. The "
            "episodes of a group then play different situations, and the run's own checks end it (on_alarm)"
        )
    elif another == again:
        say(
            f"environment {env.spec.name} begins alike with seeds {seed} and {seed + 1}: right if it has only one "
            "beginning; else it ignores its seed, and training sees a single situation"
        )


def _shown(seen: Observation) -> tuple[object, ...]:
    """What the policy would see, in a form that can be compared."""
    picture = None if seen.image is None else (seen.image.shape, seen.image.tobytes())
    return seen.text, picture, [dict(tool) for tool in seen.tools], [tuple(said) for said in seen.earlier]
