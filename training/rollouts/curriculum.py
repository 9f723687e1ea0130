"""Which stage of a curriculum a task belongs to. Pure.

The stage of a task depends on its seed and on what the groups of earlier steps achieved, up to the newest step that is
always known when the task is played: with a lag of L, step s depends on the steps before s - L. So it does not depend
on which group finished first, and a resumed run plays the same stages.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from configs.curricula import BySteps, BySuccess, CurriculumConfig, Mixture
from configs.training import TrainConfig
from training.types import GroupSummary, Task

Achieved = Mapping[str, Sequence[float]]  # stage -> success of each group that a step played in it


@dataclass
class Curriculum:
    """The stages of a run. `achieved`: what each step played, which a checkpoint holds."""

    config: CurriculumConfig
    env: str
    lag: int = 0
    achieved: dict[int, Achieved] = field(default_factory=dict)

    def staged(self, step: int, task: Task) -> Task:
        """The task with its stage, and with the environment of that stage."""
        name = self.config.names[self._drawn(step, random.Random(f"stage/{task.seed}"))]
        env = next(stage.env for stage in self.config.stages if stage.name == name)
        return replace(task, stage=name, env=env or self.env)

    def _drawn(self, step: int, rng: random.Random) -> int:
        order, count = self.config.order, len(self.config.stages)
        if isinstance(order, Mixture):
            return rng.choices(range(count), order.weights or None)[0]
        if isinstance(order, BySteps):
            return sum(start <= step for start in order.starts) - 1
        reached = self.reached(step)
        if reached and rng.random() < order.review_share:
            return rng.randrange(reached)
        return reached

    def reached(self, step: int) -> int:
        """The furthest stage that the step's tasks can be of, from 0."""
        order, names = self.config.order, self.config.names
        if isinstance(order, BySteps):
            return sum(start <= step for start in order.starts) - 1
        if not isinstance(order, BySuccess):
            return len(names) - 1
        stage, window = 0, deque[float](maxlen=order.window_groups)
        for earlier in sorted(known for known in self.achieved if known < step - self.lag):
            window.extend(self.achieved[earlier].get(names[stage], ()))
            full = len(window) == order.window_groups
            if full and stage + 1 < len(names) and sum(window) / len(window) >= order.advance_at:
                stage, window = stage + 1, deque[float](maxlen=order.window_groups)
        return stage

    def record(self, step: int, groups: Sequence[GroupSummary]) -> dict[str, float]:
        """Takes in what a step played; returns its metrics."""
        played: dict[str, list[float]] = {}
        for group in groups:
            successes = [float(episode.success) for episode in group.episodes]
            played.setdefault(group.task.stage, []).append(sum(successes) / len(successes))
        self.achieved[step] = {stage: tuple(each) for stage, each in played.items()}
        metrics = {"curriculum/stage": float(self.reached(step))}
        for stage, each in played.items():
            metrics[f"curriculum/{stage}_success"] = sum(each) / len(each)
            metrics[f"curriculum/{stage}_groups_total"] = float(len(each))
        return metrics

    def begin(self, first_step: int, achieved: Mapping[int, Achieved]) -> None:
        """(Re)starts at a step, with what a checkpoint holds: later steps will be played again."""
        self.achieved = {step: each for step, each in achieved.items() if step < first_step}


def curriculum_of(config: TrainConfig) -> Curriculum | None:
    if config.curriculum is None:
        return None
    return Curriculum(config.curriculum, config.env.name, config.rollout.max_policy_lag_steps)
