"""The memory that a command will need is told before it starts, and refused when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.models import TinyModel
from configs.serving import ServeConfig
from configs.training import TrainConfig
from deployments.weights.space import GIB
from training.cluster import machine, memory, ray_session
from training.cluster.errors import ClusterError
from training.cluster.memory import Estimate, ModelSize, Part
from training.commands import app

TINY = "configs/train/tictactoe_tiny.yaml"


def each(estimate: Estimate, name: str) -> int:
    return next(part.each_bytes for part in estimate.parts if part.name == name)


FEW_TOKENS = ("learner.max_tokens_per_microbatch=16", "serving.engine.max_model_len=16")


def tiny(*overrides: str) -> Estimate:
    return memory.of_training(TrainConfig.load(TINY, ["serving.engine.device=cpu", *overrides]))


def test_the_size_of_a_tiny_model_is_that_of_the_model_that_is_built(policy_folder: Path) -> None:
    built = ModelSize.of_folder(policy_folder)
    model = TinyModel(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64)

    computed = ModelSize.of_tiny(model.model_copy(update={"vocab_size": built.vocabulary}))

    assert computed.parameters == pytest.approx(built.parameters, rel=0.02)  # biases and norms are left out
    assert (computed.hidden, computed.intermediate, computed.layers) == (
        built.hidden,
        built.intermediate,
        built.layers,
    )


def test_what_the_estimate_follows_from() -> None:
    """Each of these settings was added to the constants of the processes, and is what an error advises to change."""
    few = tiny()
    assert each(tiny("serving.engine.cpu_kv_cache_gib=2.125"), "engine") - each(few, "engine") == 2 * GIB
    assert each(tiny("learner.max_tokens_per_microbatch=32768"), "learner") > each(few, "learner") + 0.3 * GIB
    # eight versions more, of half a million parameters of 4 bytes
    version = memory.model_size(TrainConfig.load(TINY)).parameters * 4
    stored = "weight versions in shared memory"
    assert each(tiny("weights.keep=12"), stored) - each(few, stored) == 8 * version
    assert tiny("serving.replicas.min_replicas=2", "serving.replicas.max_replicas=2").total_bytes > (
        few.total_bytes + memory.ENGINE + memory.REPLICA
    )


def test_the_learner_of_seven_billion_parameters_needs_a_hundred_gibibytes_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = ModelSize(7_000_000_000, 3584, 18944, 28, 152064)
    monkeypatch.setattr(memory, "model_size", lambda config, model=None: size)
    # 16 bytes per parameter: 7e9 * 16 = 104.3 GiB
    assert 104 * GIB < each(tiny(*FEW_TOKENS), "learner") < 106 * GIB


def test_a_machine_with_less_memory_is_refused_with_the_numbers() -> None:
    estimate = Estimate((Part("engine", 2, 3 * GIB), Part("learner", 1, GIB)))

    memory.check(estimate, available=7 * GIB)
    with pytest.raises(ClusterError, match=r"about 7\.0 GiB \(engine 2 x 3\.0, learner 1\.0\), but 6\.0 GiB are avail"):
        memory.check(estimate, available=6 * GIB)


@pytest.mark.parametrize(
    "command", [["train", "--config", TINY], ["serve", "--config", "configs/serve/qwen_0_5b_a100.yaml"]]
)
def test_a_command_that_starts_an_engine_refuses_before_it_starts_anything(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: GIB)
    monkeypatch.setattr(ray_session, "starts_here", lambda: True)  # whatever Ray other tests have left running
    if command[0] == "train":
        command = [*command, "--set", f"storage_path={tmp_path}"]

    assert app.run(command) == 1

    assert "1.0 GiB are available" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train", "--config", TINY, "--dry-run"]) == 0
    assert "memory, all on one machine: " in capsys.readouterr().out


def test_a_model_that_is_not_on_this_machine_yet_is_left_out_and_named() -> None:
    config = TrainConfig.load("configs/train/qwen_0_5b_a100.yaml", ["serving.engine.device=cpu"])
    assert str(memory.of_training(config)).endswith(f"without the weights of {config.model.source})")


def test_a_sweep_needs_all_its_runs_at_once_but_one_ray() -> None:
    config = TrainConfig.load(TINY, ["serving.engine.device=cpu"])
    one, two = memory.of_training(config), memory.of_sweep(config, 2)
    shared = sum(each(one, name) for name in ("Ray", "command", "Ray Serve"))
    assert two.total_bytes == 2 * one.total_bytes - shared


def test_serving_needs_an_engine_per_policy() -> None:
    policy = {"name": "a", "model": "x", "engine": {"device": "cpu"}}
    one = memory.of_serving(ServeConfig.parse({"policies": [policy]}))
    two = memory.of_serving(ServeConfig.parse({"policies": [policy, {**policy, "name": "b"}]}))
    assert two.total_bytes - one.total_bytes == memory.ENGINE + memory.REPLICA + GIB


def test_the_memory_of_the_machine_is_what_its_control_group_leaves(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {32 * 2**20} kB\nMemAvailable: {20 * 2**20} kB\n")
    assert machine.available_bytes(proc, cgroup) == 20 * GIB

    (proc / "self" / "cgroup").write_text("0::/pod/container\n")
    (cgroup / "pod" / "container").mkdir(parents=True)
    (cgroup / "pod" / "container" / "memory.max").write_text("max\n")
    (cgroup / "pod" / "container" / "memory.current").write_text("1\n")
    (cgroup / "pod" / "memory.max").write_text(str(8 * GIB))
    (cgroup / "pod" / "memory.current").write_text(str(3 * GIB))
    (cgroup / "pod" / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    assert machine.available_bytes(proc, cgroup) == 6 * GIB  # 8 - 3, and 1 of files that are given back

    assert machine.available_bytes(tmp_path / "no-proc", cgroup) is None


def test_the_pretrained_model_is_counted_before_it_has_been_unpacked() -> None:
    config = TrainConfig.load("configs/train/tictactoe_smollm2.yaml", ["serving.engine.device=cpu"])
    estimate = memory.of_training(config)
    assert estimate.unknown == ()
    # 0.5 GiB of weights: one copy in the engine, four (with gradients and moments) in the learner, 2 + 1 in the store
    assert each(estimate, "learner") > 2 * GIB
    assert each(estimate, "weight versions in shared memory") == 3 * 134_515_008 * 4
    assert estimate.total_bytes < 10.1 * GIB
