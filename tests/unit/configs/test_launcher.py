"""A launcher's file becomes settings of ours, key by key, and says of each key what became of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs import launcher
from configs.base import ConfigError, apply_overrides
from configs.launcher import LauncherConfig, Note, translate
from configs.sweep import as_overrides
from configs.training import TrainConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "commands.md"
WHOLE = """
modal: {gpu_type: A100-40GB, gpu_count: 2, timeout_hours: 24, secrets: [wandb]}
model:
  base_model: Qwen/Qwen2.5-1.5B-Instruct
  max_token_length: 4096
  dtype: bfloat16
  attn_implementation: sdpa
  overrides: {bfcl: Salesforce/xLAM-2-3b-fc-r, gsm8k: some/other}
training:
  environment: vf-wordle
  steps: 150
  batch_size: 4
  gradient_accumulation_steps: 6
  learning_rate: 1e-5
  max_grad_norm: 0.2
  scripts: {mine: my_scripts:train}
vllm:
  gpu_memory_utilization: 0.7
  max_model_len: 8192
  block_size: 16
  enforce_eager: true
  enable_auto_tool_choice: true
  tool_call_parser: hermes
wandb: {project: games, enabled: true}
"""


def named(given: str) -> str:
    name = given.removeprefix("vf-")
    if name not in ("wordle", "bfcl"):
        raise ValueError(f"no environment {given}")
    return name


def translated(text: str, **more: Any) -> launcher.Translation:
    return translate(yaml.safe_load(text), named, **more)


def ours(text: str) -> dict[str, Any]:
    return dict(translated(text).settings)


def test_a_whole_file_becomes_a_training_configuration() -> None:
    found = translated(WHOLE)

    config = TrainConfig.parse(apply_overrides({}, as_overrides(found.settings)))

    assert (config.env.name, config.steps) == ("wordle", 150)
    assert (config.optimizer.lr, config.optimizer.clip_norm) == (1e-5, 0.2)
    assert (config.model.source, config.model.dtype) == ("Qwen/Qwen2.5-1.5B-Instruct", "bfloat16")
    engine = config.serving.engine
    assert (engine.max_model_len, engine.gpu_memory_utilization, engine.dtype) == (4096, 0.7, "bfloat16")
    assert (engine.extra, engine.enforce_eager, engine.tool_call_parser) == ({"block_size": 16}, True, "hermes")
    assert (config.tracking.wandb, config.tracking.wandb_project) == ("online", "games")
    assert config.scripts == {"mine": "my_scripts:train"}
    assert (found.gpu_type, found.gpu_count, found.environment) == ("A100-40GB", 2, "wordle")


def test_every_key_of_a_file_is_told() -> None:
    data = yaml.safe_load(WHOLE)
    keys = {f"{section}.{key}" for section, inner in data.items() for key in inner}

    told = {note.key for note in translated(WHOLE).notes}

    assert keys - told == set()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("model: {base_model: a/b}", {"model.source": "a/b"}),
        ("model: {attn_implementation: eager}", {"model.attn_implementation": "eager"}),
        ("model: {max_token_length: 2048}", {"serving.engine.max_model_len": 2048}),
        ("model: {overrides: {vf-bfcl: a/b}}", {"model.overrides": {"bfcl": "a/b"}}),
        ("training: {environment: vf-bfcl}", {"env.name": "bfcl"}),
        ("training: {steps: 7}", {"steps": 7}),
        ("training: {learning_rate: 1e-5}", {"optimizer.lr": 1e-5}),
        ("training: {max_grad_norm: 0.1}", {"optimizer.clip_norm": 0.1}),
        ("training: {scripts: {a: b:c}}", {"scripts": {"a": "b:c"}}),
        ("vllm: {gpu_memory_utilization: 0.5}", {"serving.engine.gpu_memory_utilization": 0.5}),
        ("vllm: {max_model_len: 512}", {"serving.engine.max_model_len": 512}),
        ("vllm: {block_size: 32}", {"serving.engine.extra.block_size": 32}),
        ("vllm: {enforce_eager: false}", {"serving.engine.enforce_eager": False}),
        ("vllm: {tool_call_parser: xlam}", {"serving.engine.tool_call_parser": "xlam"}),
        ("vllm: {enable_auto_tool_choice: false}", {"serving.engine.tool_call_parser": None}),
        ("vllm: {enable_auto_tool_choice: true}", {}),
        ("wandb: {project: p}", {"tracking.wandb_project": "p"}),
        ("wandb: {enabled: true}", {"tracking.wandb": "online"}),
        ("wandb: {enabled: false}", {"tracking.wandb": "off"}),
        ("modal: {app_name: x}", {}),
        ("wandb:\nmodal:", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_becomes_a_setting(text: str, settings: dict[str, Any]) -> None:
    assert ours(text) == settings


def test_of_two_bounds_of_the_context_the_smaller_counts() -> None:
    both = ours("model: {max_token_length: 4096}\nvllm: {max_model_len: 2048}")
    assert both == {"serving.engine.max_model_len": 2048}


def test_a_long_context_makes_room_in_the_learner() -> None:
    settings = ours("vllm: {max_model_len: 32768}")
    assert settings["learner.max_tokens_per_microbatch"] == 32768
    TrainConfig.parse({}, as_overrides(settings))  # else it is refused: the first full episode could not be trained on


@pytest.mark.parametrize(
    ("theirs", "here"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "bfloat16"), ("auto", "bfloat16")],
)
def test_learner_and_replicas_compute_in_one_type_that_both_have(theirs: str, here: str) -> None:
    assert ours(f"model: {{dtype: {theirs}}}") == {"model.dtype": here, "serving.engine.dtype": here}


@pytest.mark.parametrize(
    ("text", "groups", "size"),
    [
        ("batch_size: 4, gradient_accumulation_steps: 6", 3, 8),  # 24 episodes
        ("batch_size: 10, gradient_accumulation_steps: 1", 2, 8),  # 10 do not fill two groups
        ("batch_size: 4", 1, 4),
        ("batch_size: 1", 1, 2),  # an advantage needs a sibling
    ],
)
def test_batch_size_and_accumulation_are_the_episodes_of_a_step(text: str, groups: int, size: int) -> None:
    assert ours(f"training: {{{text}}}") == {"rollout.groups_per_step": groups, "rollout.group_size": size}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modal: {timeout_hours: 3}", "modal.timeout_hours: without effect, because rayward runs on Ray"),
        ("model: {overrides: {gsm8k: a/b}}", "model.overrides.gsm8k: without effect, because there is no such"),
        (
            "training: {gradient_accumulation_steps: 4}",
            "without effect, because micro-batches follow from learner.max_",
        ),
        ("vllm: {enable_auto_tool_choice: true}", "without effect, because tools are taken wherever"),
        (
            "vllm: {enable_auto_tool_choice: false, tool_call_parser: a}",
            "tool_call_parser: without effect, because vllm",
        ),
    ],
)
def test_what_has_no_effect_says_why(text: str, told: str) -> None:
    assert any(told in str(note) for note in translated(text).notes)


def test_secrets_of_modal_are_not_repeated() -> None:
    notes = translated("modal: {secrets: {WANDB_API_KEY: very-secret}}").notes
    assert "very-secret" not in " ".join(map(str, notes))


def test_an_environment_that_is_played_instead_is_told() -> None:
    found = translated("training: {environment: vf-wordle}", environment="bfcl")
    assert (found.environment, dict(found.settings)) == ("bfcl", {})
    assert str(found.notes[0]) == "training.environment: without effect, because --env bfcl is played instead"


@pytest.mark.parametrize("modal", ["{gpu: 'H100:2'}", "{gpu: H100, gpu_count: 2}", "{gpu_type: H100, gpu_count: 2}"])
def test_the_gpus_of_modal_are_asked_for(modal: str) -> None:
    found = translated(f"modal: {modal}")
    assert (found.gpu_type, found.gpu_count) == ("H100", 2)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("training: {enviroment: vf-wordle}", "training.enviroment: unknown key. Did you mean 'environment'?"),
        ("model: {base_modle: a/b}\nvllm: {}", "Did you mean 'base_model'?"),
        ("vllm: {gpu_memory_utilisation: 0.5}", "Did you mean 'gpu_memory_utilization'?"),
        ("modal: {}\nwandbb: {enabled: true}", "Did you mean 'wandb'?"),
        ("training: {steps: many}", "training.steps: Input should be a valid integer"),
        ("model: {dtype: int8, base_model: x}", "model.dtype: Input should be 'auto', 'float32'"),
        ("modal: {gpu_count: two}", "modal.gpu_count must be a whole number"),
    ],
)
def test_what_does_not_fit_the_layout_names_the_key(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(advice)):
        translated(text)


def test_an_unknown_environment_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="no environment vf-chess"):
        translated("training: {environment: vf-chess}")


def test_our_own_files_are_told_from_a_launchers() -> None:
    assert launcher.is_launcher(yaml.safe_load(WHOLE))
    assert launcher.is_launcher({"model": {"base_model": "a"}})
    assert not launcher.is_launcher(TrainConfig().dump())
    assert not launcher.is_launcher({"model": {"overrides": {"bfcl": "a"}}})


def test_the_page_has_a_row_for_every_key() -> None:
    table = PAGE.read_text().split("## The file of a launcher")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    told = {f"{section}.{key}" for section, keys in rows for key in re.findall(r"`(\w+)`", keys)}
    known = {
        f"{section}.{key}"
        for section in ("model", "training", "vllm", "wandb")
        for key in LauncherConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    } | {f"modal.{key}" for key in launcher.GPU_KEYS}
    assert told == known


def test_a_note_is_one_line() -> None:
    assert str(Note("a.b", "c", 3, "why")) == "a.b: c = 3 (why)"
