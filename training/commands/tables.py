"""What the commands show: tables of evaluations, and of who runs where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from training.tracking import intervals
from training.tracking.intervals import Estimate

if TYPE_CHECKING:
    from training.cluster.placement import Role
    from training.evaluation.closed_loop import ClosedLoop
    from training.evaluation.doctor import Report
    from training.evaluation.result import Evaluation


def table(evaluations: Sequence[Evaluation], title: str) -> Table:
    """A rich table of evaluations; all are compared with the first."""
    shown = Table(title=title)
    with_history = len({evaluation.history for evaluation in evaluations}) > 1
    played_out = any(evaluation.outcomes for evaluation in evaluations)
    columns = ["policy", "success [95 %]", "mean return [95 %]", "illegal", "turns", "vs first [95 %]"]
    if played_out:
        columns.insert(3, "win / draw / loss")
    for column in columns:
        shown.add_column(column, justify="left" if column == "policy" else "right", overflow="fold")
    for evaluation in evaluations:
        outcomes = evaluation.outcomes
        gain = intervals.paired_difference(evaluations[0].success_S, evaluation.success_S)
        cells = [
            f"{evaluation.name}, {evaluation.history}" if with_history else evaluation.name,
            str(evaluation.success),
            str(evaluation.mean_return),
            f"{evaluation.illegal_rate:.3f}",
            f"{evaluation.turns:.1f}",
            "" if evaluation is evaluations[0] else _signed(gain),
        ]
        if played_out:
            shares = (str(outcomes[kind]) for kind in ("win", "draw", "loss"))
            cells.insert(3, " / ".join(shares) if outcomes else "-")
        shown.add_row(*cells)
    full = [e for e in evaluations if e.context_full]
    if full:
        shown.caption = "; ".join(
            f"{e.name}, {e.history}: the chat outgrew engine.max_model_len in {e.context_full} episodes" for e in full
        )
    return shown


def closed_loop_table(result: ClosedLoop, name: str, title: str) -> Table:
    """One policy that is served. The success is that of the episodes whose server was not lost."""
    shown = Table(title=title)
    columns = ["policy", "success [95 %]", "played", "server lost", "steps", "unreadable answers"]
    for column in columns:
        shown.add_column(column, justify="left" if column == "policy" else "right", overflow="fold")
    success = "-" if result.success is None else str(result.success)
    counts = (str(result.played), str(result.server_lost))
    shown.add_row(name, success, *counts, f"{result.steps:.1f}", f"{result.unreadable:.3f}")
    return shown


def paired_table(evaluations: Sequence[Evaluation]) -> Table:
    """Compares each evaluation with a baseline in the same situations. The baseline is the first model with the same
    history strategy; for the first model itself, its first strategy."""
    shown = Table(title="paired differences in the same situations")
    for column in ("policy", "against", "success [95 %]", "return [95 %]", "better / equal / worse"):
        shown.add_column(column, justify="left" if column in ("policy", "against") else "right", overflow="fold")
    for other in evaluations[1:]:
        same = next(evaluation for evaluation in evaluations if evaluation.history == other.history)
        base = evaluations[0] if same is other else same
        pairs = list(zip(base.returns_S, other.returns_S, strict=True))
        better, worse = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
        shown.add_row(
            f"{other.name}, {other.history}",
            f"{base.name}, {base.history}",
            _signed(intervals.paired_difference(base.success_S, other.success_S)),
            _signed(intervals.paired_difference(base.returns_S, other.returns_S)),
            f"{better} / {len(pairs) - better - worse} / {worse}",
        )
    return shown


def _signed(gain: Estimate) -> str:
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def differences(report: Report) -> Table:
    """Sampler against learner, by the token's place in the answer."""
    shown = Table("token of the answer", "max |difference|", "mean |difference|", title="sampler - learner")
    for position, (largest, mean) in enumerate(report.by_position):
        shown.add_row(str(position), f"{largest:.2e}", f"{mean:.2e}")
    return shown


def placement(roles: Sequence[Role]) -> Table:
    """Who runs where, on how much."""
    shown = Table(title="placement")
    for column in ("role", "processes", "CPUs each", "GPUs each", "custom resources each"):
        shown.add_column(column, overflow="fold")
    for role in roles:
        count = str(role.count) if role.count == role.at_most else f"{role.count}..{role.at_most}"
        resources = ", ".join(f"{name}: {amount:g}" for name, amount in role.resources.items())
        shown.add_row(role.name, count, f"{role.cpus:g}", f"{role.gpus:g}", resources)
    return shown
