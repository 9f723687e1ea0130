"""The learning curve of a run as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from training.tracking.intervals import Estimate
from training.tracking.json_lines import read_rows


def learning_curve(metrics: Path, target: Path, title: str, marks: Mapping[str, Estimate]) -> None:
    """Draws the success of the rollouts per step, raw and smoothed, and each evaluation as a line with its interval.

    `metrics` is a run's metrics.jsonl, `target` the PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [(row["step"], row.get("rollout/success")) for row in read_rows(metrics)]
    steps = [step for step, value in points if value is not None]
    success = [value for _, value in points if value is not None]
    smooth: list[float] = []
    for value in success:
        smooth.append(value if not smooth else 0.9 * smooth[-1] + 0.1 * value)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes.plot(steps, success, color="#9ecae1", linewidth=1, label="rollouts")
    axes.plot(steps, smooth, color="#08519c", linewidth=2, label="rollouts, smoothed")
    for (name, mark), color in zip(marks.items(), ("#888888", "#e6550d", "#31a354"), strict=False):
        axes.axhline(mark.value, color=color, linestyle="--", linewidth=1, label=f"{name}, held out: {mark.value:.2f}")
        axes.axhspan(mark.low, mark.high, color=color, alpha=0.12)
    axes.set(xlabel="GRPO step", ylabel="success", ylim=(0, 1), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(target)
    pyplot.close(figure)
