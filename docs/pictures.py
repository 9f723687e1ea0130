"""Draws docs/architecture.png: `python docs/pictures.py` (matplotlib is in the environment of `make setup`)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

# name -> (x, y, width, height, first line, second line, colour)
BOXES = {
    "users": (0.2, 4.15, 2.3, 1.0, "users, robots", "HTTP, OpenAI API", "#f2f2f2"),
    "ingress": (3.3, 4.15, 2.3, 1.0, "ingress", "Ray Serve, HAProxy", "#dbe9f6"),
    "policy": (6.4, 3.2, 2.7, 1.95, "policy replicas", "vLLM, autoscaled", "#b9d6ee"),
    "rollouts": (3.3, 2.2, 2.3, 1.3, "rollout workers", "environments, asyncio", "#dff0d8"),
    "coordinator": (0.2, 2.2, 2.3, 1.3, "coordinator", "groups, bounded lag", "#dff0d8"),
    "learner": (0.2, 0.3, 2.3, 1.2, "GRPO learner", "Ray Train, torch", "#fbe5c8"),
    "store": (6.4, 0.3, 2.7, 1.2, "weight store", "versions, checksums", "#fbe5c8"),
}
# (from, to, label, offset of the label); points are absolute
ARROWS = [
    ((2.5, 4.65), (3.3, 4.65), "", (0, 0)),
    ((5.6, 4.65), (6.4, 4.65), "requests", (0.0, 0.18)),
    ((5.6, 2.95), (6.4, 3.55), "", (0, 0)),
    ((6.4, 3.25), (5.6, 2.65), "tokens in, tokens out", (0.68, -0.42)),
    ((2.5, 3.05), (3.3, 3.05), "tasks", (0.0, 0.18)),
    ((3.3, 2.55), (2.5, 2.55), "groups", (0.0, -0.24)),
    ((1.35, 2.2), (1.35, 1.5), "batch of full groups", (1.0, 0.0)),
    ((2.5, 0.9), (6.4, 0.9), "publish version v + 1", (0.0, 0.18)),
    ((7.75, 1.5), (7.75, 3.2), "fetched when a request\nasks for v + 1", (1.05, -0.2)),
]


def draw(target: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(10, 5.4))
    for x, y, width, height, first, second, colour in BOXES.values():
        style = "round,pad=0.02,rounding_size=0.12"
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor="#555555"))
        axes.text(x + width / 2, y + height / 2 + 0.14, first, ha="center", va="center", fontsize=12, weight="bold")
        axes.text(x + width / 2, y + height / 2 - 0.2, second, ha="center", va="center", fontsize=9.5)
    for start, end, label, (right, up) in ARROWS:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color="#444444", linewidth=1.3))
        middle = ((start[0] + end[0]) / 2 + right, (start[1] + end[1]) / 2 + up)
        axes.text(*middle, label, ha="center", va="center", fontsize=9)
    axes.text(9.9, 5.45, "one Ray cluster: a laptop, or many nodes", ha="right", fontsize=10, style="italic")
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 5.7)
    axes.axis("off")
    figure.savefig(target, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    draw(Path(__file__).with_name("architecture.png"))
