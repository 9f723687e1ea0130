"""Writes docs/gallery.md and its pictures: every registered environment with a few turns of its expert.

`python -m docs.gallery`
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from envs import registry
from envs.base import Env, Observation

PAGE = Path(__file__).parent / "gallery.md"
PICTURES = PAGE.parent / "gallery"
SEED, TURNS, SIDE = 3, 2, 224
INTRODUCTION = """# Gallery

Written by `python -m docs.gallery`; do not edit it by hand. `rayward play --env NAME` plays each by hand,
[environments.md](environments.md) has the rules.
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *(section(name) for name in registry.names())])


def section(name: str) -> str:
    env = registry.make(name)
    spec = env.spec
    seen = "text and a picture" if spec.image else "text"
    scratchpad = "yes" if spec.supports_scratchpad else "no"
    lines = [
        f"## {name}\n",
        f"{spec.one_line[0].upper()}{spec.one_line[1:]}.\n",
        "| observation | turns at most | best return | best success | scratchpad |",
        "| --- | --- | --- | --- | --- |",
        f"| {seen} | {spec.horizon} | {spec.best_return:g} | {spec.best_success:g} | {scratchpad} |\n",
    ]
    if picture(name) is not None:
        lines.append(f"![{name}](gallery/{name}.png)\n")
    lines += ["```text", *transcript(env), "```", ""]
    env.close()
    return "\n".join(lines)


def transcript(env: Env) -> Iterator[str]:
    """The first turns of the expert."""
    observation, rng = env.reset(SEED), random.Random(SEED)
    for _ in range(TURNS):
        yield _shown(observation)
        action = env.expert_action(rng)
        yield f"> {action}"
        result = env.step(action)
        observation = result.observation
        if result.terminated or result.truncated:
            break
    yield _shown(observation)


def _shown(observation: Observation) -> str:
    return ("[picture] " if observation.image is not None else "") + observation.text


def picture(name: str) -> np.ndarray | None:
    """What the policy sees after the expert's first turns, beside the whole state where both are pictures; None where
    there are none."""
    env, rng = registry.make(name), random.Random(SEED)
    seen, over = env.reset(SEED), False
    for _ in range(min(TURNS, env.spec.horizon - 1)):
        if not over:
            result = env.step(env.expert_action(rng))
            seen, over = result.observation, result.terminated or result.truncated
    shown = [each for each in (seen.image, env.render()) if each is not None]
    env.close()
    if len(shown) == 2 and np.array_equal(*shown):
        shown = shown[:1]
    return np.concatenate([_scaled(each) for each in shown], axis=1) if shown else None


def _scaled(image: np.ndarray) -> np.ndarray:
    """SIDE pixels high, by the nearest pixel, with a white edge."""
    rows = np.arange(SIDE) * image.shape[0] // SIDE
    columns = np.arange(SIDE * image.shape[1] // image.shape[0]) * image.shape[0] // SIDE
    return np.pad(image[rows][:, columns], ((4, 4), (4, 4), (0, 0)), constant_values=255)


def main() -> None:
    from PIL import Image

    PICTURES.mkdir(exist_ok=True)
    PAGE.write_text(page())
    for name in registry.names():
        drawn = picture(name)
        if drawn is not None:
            Image.fromarray(drawn).save(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
