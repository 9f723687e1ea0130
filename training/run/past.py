"""Past versions of the policy as opponents in self-play."""

from __future__ import annotations

import random
from pathlib import Path

from configs.rollouts import SelfPlayConfig
from deployments.storage.tensors import tensors_of
from deployments.weights.store import WeightStore


class PastVersions:
    """Keeps a version of the policy every few steps, and draws one of them for the replica that plays the other side.

    The versions are in a store of the run's folder and stay for a resume. Each is called by its step: 0 is the policy
    that the run started from. What is drawn depends on the run's seed and the step alone, so a resumed run has the
    opponents that it would have had.
    """

    def __init__(
        self,
        settings: SelfPlayConfig,
        seed: int,
        folder: Path,
        replayed_steps: int,
        published: WeightStore,
        served: WeightStore,
    ):
        """`folder`: of the kept versions. `replayed_steps`: how many steps a resume may go back, whose older versions
        must still be there. `published`: the run's store. `served`: the store that the opponent's replica reads."""
        self._settings, self._seed, self._published, self._served = settings, seed, published, served
        self._kept = WeightStore(str(folder), keep=settings.keep + replayed_steps // settings.every_steps + 1)

    def begin(self, step: int, start_model: Path) -> int:
        """At the start of a run, or a resume at `step`. Returns the version that the opponent's replica must hold."""
        if not self._kept.versions():
            self._kept.publish(0, tensors_of(start_model))
        return self._serve(step - step % self._settings.every_steps)

    def after(self, step: int, version: int) -> int | None:
        """After `step` updates, whose weights were published as `version`: keeps them and draws the next opponent, when
        that is due. Returns the version that the opponent's replica must hold; None where it stays the same."""
        if step % self._settings.every_steps:
            return None
        if step > self._kept.versions()[-1]:  # else a step that is played again after a resume
            self._kept.publish(step, tensors_of(self._published.fetch(version).folder))
        return self._serve(step)

    def _serve(self, step: int) -> int:
        version = (self._served.latest() or 0) + 1
        self._served.publish(version, tensors_of(self._kept.fetch(self.drawn(step)).folder))
        return version

    def drawn(self, step: int) -> int:
        """The step of the version that is the opponent from `step` on: one of the newest `keep` that were made by
        then."""
        there = [version for version in self._kept.versions() if version <= step][-self._settings.keep :]
        return random.Random(f"past/{self._seed}/{step}").choice(there)
