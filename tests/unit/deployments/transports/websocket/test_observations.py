"""From openpi's observations to ours."""

from __future__ import annotations

import time

import numpy as np
import pytest

from configs.acting import ActConfig, OpenpiConfig
from deployments.acting.observations import ImageLimits
from deployments.client.images import png
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest
from deployments.transports.websocket.observations import act_request

BASE, WRIST = (np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8) for seed in (0, 1))
LIBERO = {
    "observation/image": BASE,
    "observation/wrist_image": WRIST,
    "observation/state": np.arange(8, dtype=np.float64),
    "prompt": "fold",
}


def question(observation: dict[str, object], names: OpenpiConfig | None = None, max_images: int = 4) -> ActRequest:
    act = ActConfig(openpi=names or OpenpiConfig(), max_images=max_images)
    return act_request(observation, act, ImageLimits(), "1", "socket 1", time.time() + 10)


def refused(observation: dict[str, object], **changes: object) -> PolicyError:
    with pytest.raises(PolicyError) as error:
        question(observation, **changes)  # type: ignore[arg-type]
    return error.value


def test_the_names_of_openpis_examples_are_understood_as_they_are() -> None:
    found = question(LIBERO).observation

    assert [np.array_equal(a, b) for a, b in zip(found.images, (BASE, WRIST), strict=True)] == [True, True]
    assert found.instruction == "fold"
    assert found.state is not None
    assert found.state.dtype == np.float32
    assert found.state.tolist() == list(range(8))


def test_a_dict_of_images_with_a_plain_state_is_understood_too() -> None:
    found = question({"images": {"cam_high": BASE, "cam_left_wrist": WRIST}, "state": [1.0, 2.0]}).observation

    assert [np.array_equal(a, b) for a, b in zip(found.images, (BASE, WRIST), strict=True)] == [True, True]
    assert found.state is not None
    assert found.state.tolist() == [1, 2]


def test_names_are_a_setting_also_inside_a_dict_and_a_state_may_have_parts() -> None:
    names = OpenpiConfig(cameras=["images/b", "images/a"], state=["joints", "gripper"], prompt="task")

    found = question({"images": {"a": BASE, "b": WRIST}, "joints": [1.0, 2.0], "gripper": 0.5, "task": "go"}, names)

    assert [np.array_equal(a, b) for a, b in zip(found.observation.images, (WRIST, BASE), strict=True)] == [True, True]
    assert found.observation.state is not None
    assert found.observation.state.tolist() == [1, 2, 0.5]
    assert found.observation.instruction == "go"


def test_a_camera_that_is_missing_is_masked_and_keeps_its_place() -> None:
    without = {key: value for key, value in LIBERO.items() if key != "observation/image"}

    first, second = question(without).observation.images

    assert first is None
    assert second is not None


def test_a_robot_of_one_camera_needs_no_setting_although_the_stock_names_are_two() -> None:
    one_camera = {name: value for name, value in LIBERO.items() if name != "observation/wrist_image"}

    found = question(one_camera).observation

    assert [np.array_equal(image, BASE) for image in found.images] == [True]


def test_an_observation_without_any_camera_is_refused_with_the_names_that_it_has() -> None:
    error = refused({"observation/img": BASE, "prompt": "fold"})

    assert error.kind == "invalid_request"
    assert "observation/image, observation/wrist_image" in error.message
    assert "it holds observation/img, prompt" in error.message


def test_half_a_state_is_refused() -> None:
    names = OpenpiConfig(state=["joints", "gripper"])

    assert "not gripper" in refused({**LIBERO, "joints": [1.0]}, names=names).message


def test_channels_first_is_refused_under_the_cameras_name() -> None:
    error = refused({**LIBERO, "observation/image": np.transpose(BASE, (2, 0, 1))})

    assert error.message.startswith("observation/image: ")
    assert "channels come last" in error.message


def test_an_image_may_be_an_encoded_file() -> None:
    found = question({**LIBERO, "observation/image": png(BASE)}).observation

    assert np.array_equal(found.images[0], BASE)  # type: ignore[arg-type]


def test_committed_actions_a_seed_and_a_time_may_be_sent_along() -> None:
    extras = {"prefix_action": np.zeros((3, 2)), "delay": 2, "noise_seed": np.int64(5), "timestamp_ns": 2 * 10**9}

    found = question({**LIBERO, **extras})

    assert found.committed is not None
    assert (found.committed.actions.shape, found.committed.delay) == ((3, 2), 2)
    assert (found.noise_seed, found.observation.taken_unix_s) == (5, 2.0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"observation/state": "text"}, "must be numbers"),
        ({"observation/state": [[1.0], [1.0, 2.0]]}, "must be numbers"),
        ({"observation/state": [float("inf")]}, "finite"),
        ({"prompt": 3}, "must be text"),
        ({"prefix_action": [1.0, 2.0]}, "must be [actions, numbers]"),
        ({"delay": 1}, "delay 1"),
        ({"delay": True}, "whole number"),
        ({"noise_seed": 0.5}, "whole number"),
        ({"observation/image": [[1, 2, 3]]}, "not list"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(changes: dict[str, object], complaint: str) -> None:
    error = refused({**LIBERO, **changes})

    assert error.kind == "invalid_request"
    assert complaint in error.message


@pytest.mark.parametrize(
    "changes", [{"images": {str(i): BASE for i in range(5)}}, {"prompt": "x" * 70_000}, {"state": np.zeros(5000)}]
)
def test_more_than_a_robot_has_is_too_large(changes: dict[str, object]) -> None:
    assert refused({"images": {"a": BASE}, **changes}).kind == "too_large"
