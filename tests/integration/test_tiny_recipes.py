"""The tiny recipes of configs/train, shortened to one step: warm start, evaluation, GRPO, and evaluation again.

They share one replica, whose start is the slow part: a tiny Qwen2-VL whose tokenizer knows the texts of all of them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.models import TinyModel
from configs.training import TrainConfig
from tests.integration.conftest import TINY, tiny_config

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

RECIPES = ("wordle_tiny", "bfcl_tiny", "cart_pole_tiny", "key_door_pixels_tiny", "tictactoe_selfplay")
SHORT = (
    "steps=1",
    "warmstart.episodes=48",
    "warmstart.steps=6",
    "rollout.groups_per_step=4",
    "rollout.max_refills=0",
    "evaluation.episodes=8",
    "self_play.past_share=0",  # past versions are on a replica of their own
    "learner.max_tokens_per_microbatch=2048",
    "tracking.prometheus=false",
)
LONGEST = 640  # tokens of a prompt with tools, spelled by a tokenizer that has seen little of them


@dataclass(frozen=True)
class Recipes:
    """The application that all of them train through."""

    name: str
    model: Path
    weights_root: str


@pytest.fixture(scope="module")
def recipes(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recipes]:
    from training.cluster.application import application, serve_config

    model = of_all_recipes(tmp_path_factory.mktemp("recipes") / "model")
    root = str(tmp_path_factory.mktemp("recipe_weights"))
    config = tiny_config(
        stack.storage, f"model.source={model}", "env.name=tictactoe", f"serving.engine.max_model_len={LONGEST}"
    )
    with application(serve_config(config, str(model), root, "recipes", "/recipes")):
        yield Recipes("recipes", model, root)


def of_all_recipes(folder: Path) -> Path:
    from transformers import AutoTokenizer

    from training.imitation import tiny

    texts = (tiny.environment_texts(recipe(name).env, episodes=8) for name in RECIPES)
    settings: dict[str, Any] = TINY["model"]["tiny"]  # type: ignore[index]
    sizes = TinyModel.model_validate({**settings, "max_positions": LONGEST, "vocab_size": 640, "vision": {"depth": 1}})
    assert sizes.vision is not None
    folder.mkdir()
    tiny.build_tokenizer(itertools.chain.from_iterable(texts), sizes.vocab_size, folder, vision=True)
    tiny.build_vision_model(sizes, sizes.vision, AutoTokenizer.from_pretrained(folder), 0, folder)
    return folder


def recipe(name: str, *overrides: str) -> TrainConfig:
    return TrainConfig.load(f"configs/train/{name}.yaml", overrides)


@pytest.mark.parametrize("name", RECIPES)
def test_a_tiny_recipe_runs_from_warm_start_to_evaluation(stack: Any, recipes: Recipes, name: str) -> None:
    from deployments.storage import runs
    from training.evaluation.evaluate import evaluate, publish_folder
    from training.imitation.sft import warmstart
    from training.rollouts.session import open_session
    from training.run.driver import train

    joined = (f"model.source={recipes.model}", f"storage_path={stack.storage}", f"serving.connect={recipes.name}")
    config = recipe(name, *SHORT, *joined, f"weights.root={recipes.weights_root}")
    run = runs.create(config)
    warmstart(config, recipes.model, run.start_model)

    with open_session(config, run, run.start_model) as session:
        version = publish_folder(session, run.start_model)
        before = evaluate(session, "warm start", version)
        train(session, base_version=version)
        after = evaluate(session, "GRPO", session.store.latest() or 0)

    (row,) = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert (row["step"], row["rollout/lag_max"]) == (0, 0)
    assert session.store.latest() > version, "the step published nothing"
    assert row.get("train/logp_difference_max", 0.0) < 1e-3
    assert len(before.success_S) == len(after.success_S) == 8
    assert Path(run.final_model, "model.safetensors").exists()
