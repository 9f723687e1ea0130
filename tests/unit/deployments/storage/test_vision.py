"""How many tokens an image takes, without the processor that decides it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.storage.vision import Vision, VisionUnsupported


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(14, 2), (16, 2), (14, 1)]))
def test_an_image_takes_the_tokens_that_qwen2_vl_gives_it(height: int, width: int, cut: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    patch, merge = cut
    seen = Vision(7, (7,), patch, merge, min_pixels=56 * 56, max_pixels=28 * 28 * 64)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(VisionUnsupported, match="too slender"):
            seen.tokens((height, width))
        return
    scaled = smart_resize(height, width, patch * merge, seen.min_pixels, seen.max_pixels)
    assert seen.tokens((height, width)) == scaled[0] * scaled[1] // (patch * merge) ** 2


def test_each_image_token_becomes_as_many_as_its_image_takes() -> None:
    # 56 x 56 pixels are 2 x 2 squares of 28; 56 x 84 are 2 x 3
    assert Vision(7, (7,), 14, 2, 56 * 56, 28 * 28 * 64).expanded((1, 7, 2, 7, 3), [(56, 56), (56, 84)]) == (
        1,
        7,
        7,
        7,
        7,
        2,
        7,
        7,
        7,
        7,
        7,
        7,
        3,
    )


def test_a_model_without_images_has_no_vision(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert Vision.load(tmp_path) is None


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_both_files_of_a_processor_are_read(tmp_path: Path, file: str) -> None:
    ids = {"image_token_id": 9, "video_token_id": 10, "vision_start_token_id": 8}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", "vision_config": {}, **ids}))
    old = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12544}
    new = {
        "image_processor": {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": 3136, "longest_edge": 12544}}
    }
    (tmp_path / file).write_text(json.dumps(old if file.startswith("pre") else new))
    assert Vision.load(tmp_path) == Vision(9, (8, 9, 10), 14, 2, 3136, 12544)


def test_a_model_that_reads_images_in_another_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}))
    with pytest.raises(VisionUnsupported, match=r"\(llava\) reads images in a way that is not known here"):
        Vision.load(tmp_path)
