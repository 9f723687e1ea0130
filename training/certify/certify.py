"""All faults, then runs without one: the certificate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from configs.serving import HttpConfig
from configs.training import TrainConfig
from deployments.storage import runs
from training.certify.faults_learner import LEARNER
from training.certify.faults_rollouts import ROLLOUTS
from training.certify.faults_sampler import SAMPLER
from training.certify.healthy import variations
from training.certify.local_actor import local_coordinator
from training.certify.models import of_family
from training.certify.mutants import Mutant
from training.certify.ranks import WORLD, Ranks, ranks_of
from training.certify.report import Certificate, Row
from training.certify.rough import healthy_but_rough
from training.certify.short_run import FaultyHarness, Outcome, ShortRuns
from training.checks.alarms import FaultFound
from training.cluster import application, ray_session
from training.evaluation.evaluate import publish_folder
from training.imitation import tiny
from training.imitation.demonstrations import demonstrations
from training.learner.architecture import UnknownArchitecture
from training.rendering.renderer import ChatRenderer
from training.rollouts.batch import assemble, fetched
from training.rollouts.samples import episode_samples
from training.rollouts.session import Session, open_session
from training.run.start import initial_model, start_model
from training.types import Batch, Denominators

MUTANTS: tuple[Mutant, ...] = (*SAMPLER, *ROLLOUTS, *LEARNER)
OTHER_FAMILIES = ("llama", "gemma2")
# Answers that the doctor looks at after a run without an alarm. The likelier of two draws is 0.56 standard deviations
# above the mean: in all that is 11 of them. With 160 answers it was 7, and a few certificates in a thousand missed it.
EXAMINED = 400

GAME = {
    "name": "certify",
    "experimenter": "rayward",
    "experiment": "certify",
    "steps": 3,
    "model": {"tiny": {"intermediate_size": 128, "max_positions": 256}},
    "env": {"name": "training.certify.game:Chance", "history": "none", "max_turns": 8},
    "sampling": {"max_tokens": 5, "temperature": 1.3},
    "rollout": {"groups_per_step": 6, "group_size": 4, "retry_backoff_s": 0.0, "max_retries": 8},
    "algorithm": {"updates_per_batch": 1},
    "optimizer": {"lr": 2e-3, "warmup_steps": 0},
    "serving": {
        "engine": {
            "dtype": "float32",
            "max_model_len": 256,
            "max_num_seqs": 64,
            "max_num_batched_tokens": 8192,
            "cpu_kv_cache_gib": 0.125,
            "extra": {"block_size": 32},
        },
        "replicas": {"drain_s": 2},
    },
    "checkpoint": {"every_steps": 0},
    "evaluation": {"temperature": 1.3},
    "tracking": {"prometheus": False},
}


TICTACTOE = (
    "env={name: tictactoe, kwargs: {split: train}, system_prompt: '', max_turns: 8}",
    "warmstart={enabled: true, episodes: 1200, noise: 0.6, illegal_noise: 0.05, steps: 80, batch_size: 32}",
)


# The same game, shown as a picture to a tiny Qwen2-VL.
PICTURES = (
    "env.kwargs={pictures: true}",
    "model.tiny.vision={depth: 1}",
    "warmstart.episodes=4",
)


def settings_of(storage: Path, *overrides: str) -> TrainConfig:
    """The configuration of the short runs."""
    return TrainConfig.parse({**GAME, "storage_path": str(storage)}, overrides)


def faults(session: Session, settings: TrainConfig, model: Path) -> Iterator[Row]:
    """Every fault once. `model`: of the architecture that the session's replicas serve."""
    short = ShortRuns(session, settings)
    with _two_ranks(short, model) as ranks:
        for mutant in MUTANTS:
            began = time.perf_counter()
            outcome = _tried(mutant, short, model, ranks)
            if outcome is not None:
                outcome = replace(outcome, seconds=time.perf_counter() - began)
            yield Row(mutant.name, outcome, mutant.skipped)


def _tried(mutant: Mutant, short: ShortRuns, model: Path, ranks: Ranks) -> Outcome | None:
    if mutant.skipped:
        return None
    if mutant.where == "ranks":
        return ranks.update(mutant.make)
    if mutant.where == "start":
        return _loaded(mutant, short)
    if mutant.where == "images":
        return _seen(mutant, short)
    if mutant.where == "resume":
        settings = ("steps=4", *mutant.settings)
        return short.play(model, mutant.put_in, settings, resume=True)
    return short.play(model, mutant.put_in, mutant.settings, examined=EXAMINED)


def _loaded(mutant: Mutant, short: ShortRuns) -> Outcome:
    """What the start of a run says to a model of another family. Without the fault it has to say nothing."""
    from training.learner.learner import Learner
    from training.learner.settings import LearnerSettings

    folder = runs.create(short.settings).path / "models" / mutant.family
    folder.mkdir(parents=True)
    settings = LearnerSettings.of(short.settings, of_family(mutant.family, folder))
    Learner(settings)
    try:
        with mutant.put_in(short.session.app):
            Learner(settings)
    except UnknownArchitecture as error:
        return Outcome("own forward", str(error), steps=0)
    return Outcome("", "", steps=0)


def _seen(mutant: Mutant, short: ShortRuns) -> Outcome:
    """An update of a tiny Qwen2-VL on demonstrations with images. Without the fault it has to raise nothing."""
    from training.learner.learner import Learner
    from training.learner.settings import LearnerSettings

    config = TrainConfig.parse(short.settings.dump(), PICTURES)
    folder = tiny.build(config.model.tiny, config.env, config.seed, initial_model(config, runs.create(config)))
    learner, batch = Learner(LearnerSettings.of(config, folder)), demonstrated(config, ChatRenderer.load(str(folder)))
    learner.update(batch)
    try:
        with mutant.put_in(short.session.app):
            learner.update(batch)
    except FaultFound as error:
        return Outcome(error.alarm.check, str(error), steps=1)
    return Outcome("", "", steps=1)


def demonstrated(config: TrainConfig, renderer: ChatRenderer) -> Batch:
    """What one group would be trained on whose members play as the expert does."""
    samples = [
        replace(sample, advantage=1.0 if index % 2 else -1.0)
        for index, episode in enumerate(demonstrations(config, renderer))
        for sample in episode_samples(episode, 0.0, 0)
    ]
    tokens = sum(sample.chosen for sample in samples)
    return Batch(tuple(samples), Denominators(tokens, config.warmstart.episodes, 1, tokens))


@contextmanager
def _two_ranks(short: ShortRuns, model: Path) -> Iterator[Ranks]:
    """Two ranks with a batch of the replicas. Raises FaultyHarness when an update without a fault is alarmed."""
    settings = TrainConfig.parse(short.settings.dump(), [f"learner.workers={WORLD}", "learner.sharding=ddp"])
    shares = played(short.session, settings, model)
    with ranks_of(settings, model, shares, runs.create(settings).path) as ranks:
        healthy_update = ranks.update()
        if healthy_update.check:
            raise FaultyHarness(f"an update of two ranks without a fault: {healthy_update.message}")
        yield ranks


def played(session: Session, settings: TrainConfig, model: Path) -> list[Batch]:
    """The first batch of a run, each rank's share of it."""
    version = publish_folder(session, model)
    with local_coordinator(settings.dump(), str(model), session.app) as coordinator:
        ray.get(coordinator.begin.remote(0, version))
        shares: list[Any] = [
            ray.get(coordinator.next_batch.remote(0, rank, settings.learner.workers))
            for rank in range(settings.learner.workers)
        ]
        return [assemble(share, fetched(share, ray.get)) for share in shares]


def healthy(
    session: Session, settings: TrainConfig, name: str, model: Path, count: int, seed: int = 0, examined: int = 24
) -> Iterator[Row]:
    """`count` runs without a fault; every fourth has to bear failures and hostile text."""
    short = ShortRuns(session, settings)
    for number, overrides in enumerate(islice(variations(seed), count)):
        rough = (lambda app: healthy_but_rough()) if number % 4 == 3 else None
        # The doctor plays the games once more by themselves, without what was added to their texts.
        outcome = short.play(model, rough, ("steps=2", *overrides), examined=0 if rough else examined)
        yield Row(f"{name}: {' '.join(overrides)}", outcome)


Say = Callable[[Row], None]  # is told each row when it is there


def certificate_on(
    session: Session, settings: TrainConfig, model: Path, healthy_runs: int, say: Say = lambda row: None
) -> Certificate:
    """Every fault, and some runs without one, on the replicas of a session, which serve models like `model`."""
    found = _said(faults(session, settings, model), say)
    return Certificate(found, _said(healthy(session, settings, "random weights", model, healthy_runs), say))


def certify(storage: Path, healthy_runs: int, say: Say = lambda row: None) -> Certificate:
    """All of it, on replicas of its own: the faults with a tiny Qwen2, then healthy runs of it, of the same one
    warm-started on TicTacToe, of a model of each of OTHER_FAMILIES, and of one that sees images."""
    settings, tictactoe = settings_of(storage), settings_of(storage, *TICTACTOE)
    run = runs.create(tictactoe)
    warm, init = start_model(tictactoe, run), initial_model(tictactoe, run)
    share = healthy_runs // (3 + len(OTHER_FAMILIES))
    with ray_session.ray_session():
        application.start_serve(HttpConfig(port=0))
        with open_session(settings, run, init) as session:
            first = certificate_on(session, settings, init, healthy_runs - share * (2 + len(OTHER_FAMILIES)), say)
            alright = first.healthy + _said(healthy(session, tictactoe, "warm-started", warm, share, seed=1), say)
        for seed, family in enumerate(OTHER_FAMILIES, 2):
            run = runs.create(settings)
            model = of_family(family, run.path / "models" / "init", settings.env)
            with open_session(settings, run, model) as session:
                alright += _said(healthy(session, settings, family, model, share, seed=seed), say)
        alright += _said(seeing(storage, share), say)
    return Certificate(first.faults, alright)


def seeing(storage: Path, count: int) -> Iterator[Row]:
    """`count` runs of a tiny Qwen2-VL without a fault, on a replica of its own."""
    settings = settings_of(storage, *PICTURES)
    run = runs.create(settings)
    model = tiny.build(settings.model.tiny, settings.env, settings.seed, initial_model(settings, run))
    with open_session(settings, run, model) as session:
        yield from healthy(session, settings, "with images", model, count, seed=9)


def _said(rows: Iterator[Row], say: Say) -> tuple[Row, ...]:
    kept = []
    for row in rows:
        say(row)
        kept.append(row)
    return tuple(kept)
