from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.chunks.description import ChunkDescription, MeanStd, Quantiles
from deployments.chunks.transforms import Normalizer, cameras, named, padded, resized, units_of
from deployments.errors import PolicyError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def description(**changes: object) -> ChunkDescription:
    statistics = {
        "state": {"kind": "mean_std", "mean": [0.0] * 3, "std": [1.0] * 3},
        "action": {"kind": "mean_std", "mean": [0.0], "std": [1.0]},
    }
    plain = {"resolution": [8, 16], "num_cams": 2, "action_dim": 1, "statistics": {"arm": statistics}}
    return ChunkDescription.parse({**plain, **changes})


def test_a_frame_keeps_its_aspect_and_is_centred_on_black() -> None:
    white = np.full((40, 20, 3), 255, np.uint8)
    out = resized(white, 8, 16)  # fits as 8 x 4, with 6 black columns on either side
    assert out.shape == (8, 16, 3)
    assert (out[:, 6:10] == 255).all()
    assert not out[:, :6].any()
    assert not out[:, 10:].any()


def test_a_frame_of_the_right_size_is_untouched() -> None:
    frame = noise(8, 16)
    assert resized(frame, 8, 16) is frame


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_any_frame_fits_any_resolution_and_gives_the_same_bytes_again(h: int, w: int, height: int, width: int) -> None:
    frame = noise(h, w)
    first = resized(frame, height, width)
    assert first.shape == (height, width, 3)
    assert (resized(np.asfortranarray(frame), height, width) == first).all(), "whatever its layout in memory"


@pytest.mark.parametrize(
    "frame",
    [
        noise(4, 4).astype(np.float32),
        noise(4, 4)[:, :, 0],
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_frame_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(PolicyError, match=r"uint8 \[H, W, 3\]") as refused:
        resized(frame, 8, 8)
    assert refused.value.kind == "invalid_request"


def test_a_missing_camera_is_black_and_masked() -> None:
    frames, mask = cameras([None, noise(8, 16)], 3, (8, 16))
    assert mask.tolist() == [False, True, False]
    assert not frames[0].any()
    assert frames[1].any()
    assert not frames[2].any()


def test_more_images_than_cameras_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"3 images for a policy with 2 camera"):
        cameras([noise(8, 8)] * 3, 2, (8, 8))


def test_a_state_is_padded_with_zeros_and_one_that_is_too_long_or_not_finite_is_refused() -> None:
    assert padded(np.array([1, 2], np.float32), 4).tolist() == [1, 2, 0, 0]
    for bad in ([1.0] * 5, [float("nan")], [[1.0]]):
        with pytest.raises(PolicyError, match="state"):
            padded(np.array(bad, np.float32), 4)


def test_mean_and_spread_are_taken_out_and_put_back() -> None:
    normalizer = Normalizer(MeanStd(mean=[1.0, 5.0], std=[2.0, 0.0]))  # the second never moved: it is only centred
    assert normalizer.normalise(np.array([[3.0, 5.0]], np.float32)).tolist() == [[1.0, 0.0]]
    assert normalizer.unnormalise(np.array([[1.0, 0.0]], np.float32)).tolist() == [[3.0, 5.0]]


def test_quantiles_become_minus_one_and_one() -> None:
    normalizer = Normalizer(Quantiles(low=[10.0, 3.0], high=[20.0, 3.0]))
    values = np.array([[10.0, 3.0], [20.0, 4.0], [25.0, 3.0]], np.float32)
    assert normalizer.normalise(values).tolist() == [[-1.0, 0.0], [1.0, 1.0], [2.0, 0.0]]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_what_is_normalised_comes_back(values: list[float], std: float, mean: float) -> None:
    normalizer = Normalizer(MeanStd(mean=[mean] * len(values), std=[std] * len(values)))
    array = np.array(values, np.float32)
    back = normalizer.unnormalise(normalizer.normalise(array))
    np.testing.assert_allclose(back, array, rtol=1e-5, atol=1e-3)


def test_unknown_statistics_are_answered_by_those_that_exist() -> None:
    units = units_of(description())
    assert named(units, None, "arm") is units["arm"]
    with pytest.raises(PolicyError, match="no action statistics 'leg'; this policy has arm"):
        named(units, "leg", "arm")


def test_whoever_receives_requests_does_not_load_torch() -> None:
    program = "import sys, deployments.chunks.transforms, deployments.chunks.real_time\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
