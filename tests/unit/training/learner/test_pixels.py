"""Images reach the model whole, once, and with the tokens that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from configs.models import ModelConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from training.checks.alarms import FaultFound
from training.learner.learner import Learner
from training.learner.pixels import PixelReader
from training.learner.settings import LearnerSettings
from training.rendering.renderer import ChatRenderer
from training.types import Batch, Denominators, Images, Sample


@pytest.fixture
def reader(vision_folder: Path) -> PixelReader:
    found = PixelReader.load(vision_folder)
    assert found is not None
    return found


def picture(seed: int, height: int = 28, width: int = 28) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def played(renderer: ChatRenderer, images: Sequence[np.ndarray], text: str = "up", advantage: float = 1.0) -> Sample:
    """One sequence, a turn for each image."""
    ids: list[int] = []
    mask: list[int] = []
    for image in images:
        content = [{"type": "image", "image": image}, {"type": "text", "text": "What now?"}]
        prompt, answer = renderer.prompt([{"role": "user", "content": content}]), renderer.answer(text)
        ids += prompt + answer
        mask += [0] * len(prompt) + [1] * len(answer)
    return Sample(tuple(ids), tuple(mask), tuple(-1.0 * each for each in mask), advantage, images=tuple(images))


def learner_of(folder: Path) -> Learner:
    return Learner(LearnerSettings(ModelConfig(), OptimizerConfig(), AlgorithmConfig(), LearnerConfig(), str(folder)))


def own_logprobs(folder: Path, sample: Sample) -> list[float]:
    """Of the chosen tokens: transformers' own model and processor, image tokens never drawn."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    seen = AutoImageProcessor.from_pretrained(folder)(images=list(sample.images), return_tensors="pt")
    renderer = ChatRenderer.load(str(folder))
    ids = torch.tensor([sample.token_ids_T])
    image = renderer.tokenizer.encode("<|image_pad|>", add_special_tokens=False)[0]
    with torch.no_grad():
        logits = model(input_ids=ids, mm_token_type_ids=(ids == image).int(), **seen).logits[0]
    logits[:, list(renderer.banned_ids)] = -torch.inf
    logp = torch.log_softmax(logits, -1)
    return [float(logp[t - 1, ids[0, t]]) for t in range(ids.shape[1]) if sample.mask_T[t]]


def test_the_learner_scores_what_it_sees_as_the_model_itself_does(vision_folder: Path) -> None:
    renderer = ChatRenderer.load(str(vision_folder))
    samples = [played(renderer, [picture(1)]), played(renderer, [picture(2), picture(3, 28, 56)], "interact")]
    scores = learner_of(vision_folder).score(samples)
    for sample, score in zip(samples, scores, strict=True):
        assert len(score) == sample.chosen
        assert score == pytest.approx(own_logprobs(vision_folder, sample), abs=1e-5)


def test_equal_words_on_different_images_are_scored_apart(vision_folder: Path) -> None:
    """Sequences with equal tokens are computed once, but not when they show something else."""
    renderer = ChatRenderer.load(str(vision_folder))
    first, second = (played(renderer, [picture(seed)]) for seed in (1, 2))
    assert first.token_ids_T == second.token_ids_T
    scores = learner_of(vision_folder).score([first, second, first])
    assert scores[0] == pytest.approx(scores[2], abs=1e-6)
    assert max(abs(a - b) for a, b in zip(scores[0], scores[1], strict=True)) > 1e-4


def test_an_update_reaches_the_image_encoder(vision_folder: Path) -> None:
    renderer, learner = ChatRenderer.load(str(vision_folder)), learner_of(vision_folder)
    before = {name: tensor.clone() for name, tensor in learner.state_dict()}
    samples = [played(renderer, [picture(seed)], advantage=advantage) for seed, advantage in ((1, 1.0), (2, -1.0))]
    tokens = sum(sample.chosen for sample in samples)
    learner.update(Batch(tuple(samples), Denominators(tokens, 2, 1, tokens), step=0))
    changed = {name for name, tensor in learner.state_dict() if (tensor != before[name]).any()}
    assert any(name.startswith("visual.blocks") for name in changed)
    assert any(name.startswith("model.layers") for name in changed)


def test_a_saved_policy_sees_as_before(vision_folder: Path, tmp_path: Path) -> None:
    learner, renderer = learner_of(vision_folder), ChatRenderer.load(str(vision_folder))
    learner.save_model(tmp_path / "saved")
    sample = [played(renderer, [picture(5)])]
    assert learner_of(tmp_path / "saved").score(sample) == learner.score(sample)
    assert ChatRenderer.load(str(tmp_path / "saved")).banned_ids == renderer.banned_ids


@pytest.mark.parametrize("cut", ["tokens", "images"])
def test_tokens_and_pixels_that_were_cut_apart_are_an_alarm(vision_folder: Path, reader: PixelReader, cut: str) -> None:
    whole = played(ChatRenderer.load(str(vision_folder)), [picture(1), picture(2)])
    half = len(whole.token_ids_T) // 2
    if cut == "tokens":
        parts = {name: getattr(whole, name)[:half] for name in ("token_ids_T", "mask_T", "sampler_logp_T")}
        sample = replace(whole, **parts)
    else:
        sample = replace(whole, images=whole.images[:1])
    with pytest.raises(FaultFound, match="check «image tokens»"):
        reader([sample])


def test_an_image_is_processed_once_however_often_it_is_shown(vision_folder: Path, reader: PixelReader) -> None:
    seen: list[int] = []

    def counting(images: Images, **options: Any) -> Any:
        seen.append(len(images))
        return processor(images=images, **options)

    processor = reader._processor
    counted = PixelReader(reader.vision, counting)
    renderer = ChatRenderer.load(str(vision_folder))
    one, other = played(renderer, [picture(1), picture(2)]), played(renderer, [picture(2), picture(1), picture(3)])
    for _ in range(2):
        pixels = counted([one, other])
    assert sum(seen) == 3
    assert pixels is not None
    assert len(pixels.grids) == 5
    assert counted.fresh()([one]) is not None
    assert sum(seen) == 5


def test_an_image_of_three_pixels_height_has_its_colours_last(vision_folder: Path, reader: PixelReader) -> None:
    renderer = ChatRenderer.load(str(vision_folder))
    (low, tall) = (np.zeros((height, 40, 3), np.uint8) for height in (3, 14))
    low[..., 0] = tall[..., 0] = 255  # red, whatever the height
    flat, high = reader([played(renderer, [low])]), reader([played(renderer, [tall])])
    assert flat is not None
    assert high is not None
    assert flat.patches[0] == pytest.approx(high.patches[0])


def test_weights_are_published_under_the_names_of_the_models_files(vision_folder: Path) -> None:
    """In memory transformers has others; a replica compares the names with those of its folder."""
    with safe_open(vision_folder / "model.safetensors", "pt") as stored:
        assert {name for name, _ in learner_of(vision_folder).state_dict()} == set(stored.keys())
