from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.chunks.checkpoint import load, tiny_checkpoint, untrained
from deployments.chunks.description import ChunkDescription
from deployments.chunks.predict import Predictor, seed_of
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkRequest
from tests.unit.deployments.chunks.cases import ACTION_DIM, HORIZON, committed, request


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(load(tiny_checkpoint(tmp_path_factory.mktemp("predict") / "tiny")), flow_steps=4)


def mixed(count: int) -> list[ChunkRequest]:
    """Requests that differ in cameras, states, prompts, and what is committed."""
    rng = random.Random(count)
    ties = [None if rng.random() < 0.5 else committed(rng.randint(4, 12), rng.randint(0, 4), i) for i in range(count)]
    return [request(f"r{i}", i, committed=tie) for i, tie in enumerate(ties)]


def test_an_answer_has_the_chunks_length_and_the_robots_dimensions(predict: Predictor) -> None:
    [actions] = predict([request()])
    assert (actions.shape, actions.dtype) == ((HORIZON, ACTION_DIM), np.float32)
    assert np.isfinite(actions).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_seeded_answer_is_the_same_to_the_last_bits_whatever_else_is_in_the_batch(
    predict: Predictor, threads: int
) -> None:
    torch.set_num_threads(threads)
    requests = mixed(16)
    alone = [predict([one])[0] for one in requests]
    rng = random.Random(0)
    for size in (2, 3, 5, 8, 13, 16):
        chosen = rng.sample(range(16), size)
        for place, actions in zip(chosen, predict([requests[i] for i in chosen]), strict=True):
            np.testing.assert_allclose(
                actions, alone[place], atol=1e-5, err_msg=f"request {place} in a batch of {size}"
            )
    assert predict([requests[0]])[0].tobytes() == alone[0].tobytes()


def test_frozen_actions_come_back_as_they_were_sent_and_the_rest_is_drawn_to_the_committed_ones(
    predict: Predictor,
) -> None:
    tie = committed(rows=8, delay=3)
    [free] = predict([request(seed=1)])
    [tied] = predict([request(seed=1, committed=tie)])
    assert tied[:3].tobytes() == tie.actions[:3].tobytes()
    for row in range(3, 6):
        assert np.linalg.norm(tied[row] - tie.actions[row]) < np.linalg.norm(free[row] - tie.actions[row])


def test_every_part_of_an_observation_changes_the_answer(predict: Predictor) -> None:
    plain = request(seed=2, image_mask=np.array([True, True]), prompt="pick the cup")
    others = [
        request(seed=2, image_mask=np.array([True, False]), prompt="pick the cup"),
        request(seed=2, image_mask=np.array([True, True]), prompt="pick the red cup"),
        request(seed=2, image_mask=np.array([True, True]), prompt="pick the cup", state=plain.state + 1),
        request(seed=2, image_mask=np.array([True, True]), prompt="pick the cup", images=255 - plain.images),
        request(seed=2, image_mask=np.array([True, True]), prompt="pick the cup", noise_seed=1),
    ]
    [answer] = predict([plain])
    assert all((answer != other).any() for other in predict(others))


def test_what_a_masked_camera_shows_does_not_matter(predict: Predictor) -> None:
    seen = request(seed=3, image_mask=np.array([True, False]))
    other = seen.images.copy()
    other[1] = 255 - other[1]
    first, second = (predict([request(seed=3, image_mask=seen.image_mask, images=i)])[0] for i in (seen.images, other))
    assert first.tobytes() == second.tobytes()


def test_a_request_that_is_sent_again_without_a_seed_has_the_same_answer() -> None:
    assert seed_of(request("again", noise_seed=None)) == seed_of(request("again", noise_seed=None))
    assert seed_of(request("another", noise_seed=None)) != seed_of(request("again", noise_seed=None))
    assert seed_of(request("", noise_seed=None)) != seed_of(request("", noise_seed=None)), "drawn anew"
    assert seed_of(request("again", noise_seed=-5)) == 2**63 - 5


def test_each_request_is_answered_in_the_units_that_it_names() -> None:
    def statistics(scale: float) -> dict[str, object]:
        return {
            "state": {"kind": "mean_std", "mean": [0.0], "std": [1.0]},
            "action": {"kind": "mean_std", "mean": [0.0], "std": [scale]},
        }

    description = ChunkDescription.parse(
        {
            "resolution": [16, 16],
            "action_dim": 1,
            "chunk_len": 10,
            "model": {"width": 32, "heads": 2},
            "statistics": {"metres": statistics(1.0), "millimetres": statistics(1024.0)},
            "default_statistics": "metres",
        }
    )
    predict = Predictor(untrained(description), flow_steps=2)
    state = np.ones(1, np.float32)
    metres, same, millimetres = predict([request(state=state, statistics=s) for s in ("metres", None, "millimetres")])
    assert (metres == same).all()
    assert (metres * 1024 == millimetres).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((2, 8, 8, 3), np.uint8)},
            r"uint8 \[2, 16, 16, 3\], got uint8 \[2, 8, 8, 3\]",
        ),
        ({"images": np.zeros((2, 16, 16, 3), np.float32)}, "got float32"),
        ({"image_mask": np.ones(3, np.bool_)}, "image_mask"),
        ({"state": np.ones(33, np.float32)}, "at most 32 numbers"),
        ({"state": np.array([np.inf], np.float32)}, "not finite"),
        ({"statistics": "leg"}, "no action statistics 'leg'; this policy has default"),
        ({"committed": committed(rows=6, delay=5)}, r"delay must lie in 0..4"),
        ({"committed": committed(rows=2, delay=3)}, r"delay must lie in 0..2"),
        ({"committed": committed(rows=2, delay=-1)}, r"delay must lie in 0..2"),
    ],
)
def test_what_cannot_be_answered_is_refused(predict: Predictor, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as refused:
        predict.check(request(**changes))
    assert refused.value.kind == "invalid_request"


def test_committed_actions_of_another_robot_are_refused(predict: Predictor) -> None:
    tie = committed()
    narrow = type(tie)(tie.actions[:, :3], 1)
    with pytest.raises(PolicyError, match="7 numbers each"):
        predict.check(request(committed=narrow))
    spoilt = tie.actions.copy()
    spoilt[5, 0] = np.nan
    with pytest.raises(PolicyError, match="not finite"):
        predict.check(request(committed=type(tie)(spoilt, 1)))


def test_a_committed_rest_that_is_longer_than_a_chunk_is_cut(predict: Predictor) -> None:
    long = request(seed=4, committed=committed(rows=HORIZON + 5, delay=2))
    predict.check(long)
    [actions] = predict([long])
    assert actions.shape == (HORIZON, ACTION_DIM)


def test_padding_a_batch_to_a_compiled_size_changes_no_answer(predict: Predictor, tmp_path: Path) -> None:
    padding = Predictor(predict.model, flow_steps=4)
    padding.sizes = (4,)
    requests = mixed(3)
    assert [a.tobytes() for a in padding(requests)] == [a.tobytes() for a in predict(requests)]


def test_frozen_actions_come_back_bit_for_bit_in_any_units() -> None:
    """Normalised and back, a third is another number in the last bits."""
    statistics = {
        "state": {"kind": "mean_std", "mean": [0.0] * 32, "std": [1.0] * 32},
        "action": {"kind": "mean_std", "mean": [0.1] * 7, "std": [0.0037] * 7},
    }
    description = ChunkDescription.parse(
        {"resolution": [16, 16], "chunk_len": 10, "model": {"width": 32, "heads": 2}, "statistics": {"arm": statistics}}
    )
    tie = committed(rows=6, delay=4)
    [actions] = Predictor(untrained(description), flow_steps=2)([request(committed=tie)])
    assert actions[:4].tobytes() == tie.actions[:4].tobytes()
