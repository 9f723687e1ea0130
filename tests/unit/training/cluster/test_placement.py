"""Who runs where, and what a run reserves."""

from __future__ import annotations

from configs.training import TrainConfig
from training.cluster.placement import needed, placement


def config(**sections: object) -> TrainConfig:
    return TrainConfig.parse({"serving": {"engine": {"device": "cpu"}}, **sections})


def test_a_run_on_a_cpu_reserves_no_gpu_and_no_custom_resource() -> None:
    assert needed(config()) == {}
    assert [role.name for role in placement(config())] == [
        "policy replica",
        "ingress",
        "learner",
        "rollout worker",
        "coordinator",
    ]


def test_a_run_that_joins_an_application_starts_no_replicas() -> None:
    joined = config(serving={"connect": "rayward", "engine": {"device": "gpu"}})
    assert [role.name for role in placement(joined)] == ["learner", "rollout worker", "coordinator"]
    assert needed(joined) == {}


def test_gpus_and_custom_resources_are_added_up_over_all_processes() -> None:
    big = TrainConfig.load("configs/train/qwen_7b_8xa100.yaml")
    # two replicas at the start on two GPUs each, eight ranks on one GPU each
    assert needed(big) == {"GPU": 2 * 2 + 8 * 1, "serve_node": 2, "train_node": 8}


def test_a_replica_count_that_may_shrink_to_none_still_starts_with_one() -> None:
    idle = config(serving={"engine": {"device": "gpu"}, "replicas": {"min_replicas": 0, "max_replicas": 3}})
    replica = placement(idle)[0]
    assert (replica.count, replica.at_most) == (1, 3)
    assert needed(idle) == {"GPU": 1}
