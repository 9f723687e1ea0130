"""Whether the configured environment can be played, before anything starts that takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from configs.base import UserError
from configs.training import TrainConfig
from envs import registry
from envs.base import EnvUsageError
from envs.history import make_history
from training.rollouts.rewards import Payment


class EnvironmentUnusable(UserError):
    """The environment raised when it was made or reset; the message holds its settings and its error."""


def check_environment(config: TrainConfig, say: Callable[[str], None]) -> None:
    """Makes and resets the environment with the settings of training and with those of evaluation. Says when evaluation
    has no situations of its own.

    Raises EnvUsageError for an unknown environment or setting, UnknownRewardPart for a weight of a part that the reward
    does not have, EnvironmentUnusable for what the environment itself raises.
    """
    env = config.env
    evaluation = registry.evaluation_settings(env.name, env.kwargs, env.eval_kwargs)
    for purpose, settings in (("training", env.kwargs), ("evaluation", evaluation)):
        _try(config, settings, purpose)
    if env.eval_kwargs is None and evaluation == env.kwargs:
        say(
            f"environment {env.name} has no setting 'split': evaluation plays the same situations as training, with "
            f"seeds from {config.evaluation.first_seed} on. env.eval_kwargs lays other settings over"
        )


def _try(config: TrainConfig, settings: Mapping[str, Any], purpose: str) -> None:
    try:
        made = registry.make(config.env.name, **settings)
        make_history(config.env.history, made.spec)
        Payment.of(made.spec, config.reward)
        made.reset(config.evaluation.first_seed if purpose == "evaluation" else config.seed)
        made.close()
    except (EnvUsageError, UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever a user's class raises is told with what it was given
        raise EnvironmentUnusable(
            f"environment {config.env.name} cannot be started for {purpose} with settings {dict(settings)}: "
            f"{type(error).__name__}: {error}"
        ) from error
