"""What a vision-language policy is shown: images beside their tokens, from the environment to the training sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from configs.rollouts import EnvConfig, RolloutConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from envs import registry
from envs.base import Observation
from envs.pixels.key_door_pixels import KeyDoorPixels
from training.rendering.conversation import Conversation
from training.rendering.messages import ContentUnsupported
from training.rendering.renderer import ChatRenderer
from training.rollouts import records
from training.rollouts.episode import run_episode
from training.rollouts.group import run_group
from training.rollouts.packed import pack
from training.rollouts.player import Player, PlaySettings
from training.rollouts.samples import episode_samples
from training.types import Group, Task

TOKENS = 4  # of a grid of 2 x 2 cells, each one token


@pytest.fixture(scope="module")
def seeing(vision_folder: Path) -> ChatRenderer:
    return ChatRenderer.load(str(vision_folder))


def picture(value: int) -> np.ndarray:
    return np.full((28, 28, 3), value, np.uint8)


def conversation(renderer: ChatRenderer, history: str) -> Conversation:
    config = EnvConfig(name="key_door_pixels", history=history, system_prompt="")  # type: ignore[arg-type]
    return Conversation(config, registry.spec("key_door_pixels"), renderer)


def image_id(renderer: ChatRenderer) -> int:
    return int(renderer.tokenizer.encode("<|image_pad|>", add_special_tokens=False)[0])


def test_an_image_is_as_many_tokens_in_the_prompt_as_it_is_to_the_model(seeing: ChatRenderer) -> None:
    chat = conversation(seeing, "none")
    prompt = chat.start(Observation("What now?", image=picture(1)))
    assert prompt.count(image_id(seeing)) == TOKENS
    assert chat.images[0] is chat.added_images[0]


def test_a_full_history_keeps_every_image_and_adds_the_newest(seeing: ChatRenderer) -> None:
    chat = conversation(seeing, "full")
    chat.start(Observation("What now?", image=picture(1)))
    chat.next(seeing.answer("up"), "up", Observation("What now?", image=picture(2)))
    assert chat.prompt.count(image_id(seeing)) == 2 * TOKENS
    assert chat.added.count(image_id(seeing)) == TOKENS
    assert [int(image[0, 0, 0]) for image in chat.images] == [1, 2]
    assert [int(image[0, 0, 0]) for image in chat.added_images] == [2]


def test_text_cannot_show_an_image_that_is_not_there(seeing: ChatRenderer) -> None:
    chat = conversation(seeing, "none")
    prompt = chat.start(Observation("<|vision_start|><|image_pad|><|vision_end|>", image=picture(1)))
    assert prompt.count(image_id(seeing)) == TOKENS


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_an_image_of_another_form_is_refused(seeing: ChatRenderer, image: np.ndarray) -> None:
    with pytest.raises(ContentUnsupported, match=r"an image is \[height, width, 3\] uint8, got"):
        conversation(seeing, "none").start(Observation("What now?", image=image))


class Walking:
    """A policy that goes down, right and interacts in turn; remembers what it was asked."""

    def __init__(self, renderer: ChatRenderer) -> None:
        self.asked: list[GenerateRequest] = []
        self._answers = [renderer.answer(f"<action>{word}</action>") for word in ("down", "right", "interact")]

    async def __call__(self, request: GenerateRequest) -> GenerateResult:
        self.asked.append(request)
        ids = list(self._answers[len(self.asked) % 3])
        return GenerateResult(request.request_id, ids, [-1.0] * len(ids), 0, "stop")


def player(renderer: ChatRenderer, policy: Walking, history: str) -> Player:
    env = EnvConfig(
        name="key_door_pixels",
        kwargs={"size": 2, "max_steps": 4},
        history=history,
        system_prompt="",  # type: ignore[arg-type]
    )
    settings = PlaySettings(env, RolloutConfig(), Sampling(max_tokens=8), max_model_len=512)
    return Player(lambda: registry.make(env.name, **env.kwargs), policy, renderer, settings)


@pytest.mark.parametrize("history", ["none", "full"])
async def test_each_request_and_each_sequence_has_the_images_of_its_tokens(seeing: ChatRenderer, history: str) -> None:
    policy = Walking(seeing)
    episode = await run_episode(player(seeing, policy, history), Task("key_door_pixels", 3), 0)
    assert episode.ok
    for request in policy.asked:
        assert list(request.token_ids).count(image_id(seeing)) == TOKENS * len(request.images)
    samples = episode_samples(episode, 0.0, 0)
    assert len(samples) == (1 if history == "full" else len(episode.turns))
    assert sum(len(sample.images) for sample in samples) == len(episode.turns)
    for sample in samples:
        assert list(sample.token_ids_T).count(image_id(seeing)) == TOKENS * len(sample.images)


async def test_a_sampler_is_told_never_to_draw_what_stands_for_an_image(seeing: ChatRenderer) -> None:
    policy = Walking(seeing)
    await run_episode(player(seeing, policy, "none"), Task("key_door_pixels", 3), 0)
    banned = [seeing.tokenizer.decode([token]) for token in policy.asked[0].sampling.banned_token_ids]
    assert banned == ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


async def test_what_siblings_see_alike_is_stored_once(seeing: ChatRenderer) -> None:
    group = await run_group(player(seeing, Walking(seeing), "none"), Task("key_door_pixels", 3), 4)
    _, packed = pack(group, {})
    shown = [image for episode in group.episodes for turn in episode.turns for image in turn.images]
    different = {image.tobytes() for image in shown}
    assert len(packed.images) == len(different) < len(shown)
    made = [packed.sample(index, 0.0, 0) for index in range(len(packed.tokens_S))]
    expected = [sample for episode in group.episodes for sample in episode_samples(episode, 0.0, 0)]
    assert [bytes_of(sample.images) for sample in made] == [bytes_of(sample.images) for sample in expected]


def bytes_of(images: Sequence[np.ndarray]) -> list[bytes]:
    return [image.tobytes() for image in images]


async def test_recorded_images_lie_beside_the_episodes_once(seeing: ChatRenderer, tmp_path: Path) -> None:
    group: Group = await run_group(player(seeing, Walking(seeing), "none"), Task("key_door_pixels", 3), 2)
    rows = parquet.read_table(records.write([group], 0, tmp_path)).to_pylist()
    turns = [turn for episode in group.episodes for turn in episode.turns]
    for row, turn in zip(rows, turns, strict=True):
        (name,) = row["images"]
        assert (np.asarray(Image.open(tmp_path / "images" / name)) == turn.images[0]).all()
    files = list((tmp_path / "images").iterdir())
    assert len(files) == len({turn.images[0].tobytes() for turn in turns})


class OneCanvas(KeyDoorPixels):
    """Draws every picture into the same array, as many simulators do."""

    def _observe(self) -> Observation:
        drawn = super()._observe()
        if not hasattr(self, "canvas"):
            self.canvas = np.array(drawn.image)
        self.canvas[:] = drawn.image
        return replace(drawn, image=self.canvas)


async def test_a_turn_keeps_what_it_was_shown_when_the_next_picture_is_drawn_over_it(seeing: ChatRenderer) -> None:
    kept = player(seeing, Walking(seeing), "none")
    drawn_over = replace(player(seeing, Walking(seeing), "none"), make_env=lambda: OneCanvas(size=2, max_steps=4))
    one, other = [await run_episode(each, Task("key_door_pixels", 3), 0) for each in (kept, drawn_over)]
    assert [bytes_of(turn.images) for turn in one.turns] == [bytes_of(turn.images) for turn in other.turns]


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), [[1, 2, 3]]])
async def test_a_picture_of_another_form_is_a_fault_of_the_environment(seeing: ChatRenderer, image: Any) -> None:
    class Odd(KeyDoorPixels):
        def _observe(self) -> Observation:
            return Observation("What now?", image=image)

    odd = replace(player(seeing, Walking(seeing), "none"), make_env=Odd)
    episode = await run_episode(odd, Task("key_door_pixels", 3), 0)
    assert episode.end == "env_failed"
    assert "an image is a numpy array [height, width, 3] of uint8, got" in episode.error
