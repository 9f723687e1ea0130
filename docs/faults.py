"""Writes docs/faults.md from the faults and checks of the code: `python -m docs.faults`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from training.certify.certify import MUTANTS
from training.certify.mutants import Mutant
from training.checks.alarms import CHECKS

PAGE = Path(__file__).with_name("faults.md")
INTRODUCTION = """# Silent faults, and what finds them

Written by `python -m docs.faults` from the code; do not edit it by hand.

The worst faults of reinforcement learning make no noise: the run goes on, the curve looks plausible, and the policy has
learned from wrong numbers. Every run of rayward checks itself while it goes on. What a check finds is an alarm: the run
ends before the faulty step is published, and the message names the check and its numbers. `on_alarm: warn` lets a run
go on; then alarms are warned of, and counted in `train/alarms_total` and `rollout/alarms_total`.

That the checks find what they should is not believed but shown: `rayward doctor --certify` puts each fault below into a
short real run on purpose (real replica, real rollouts, real learner), and then plays runs without a fault, which must
not raise an alarm. It exits with 1 when a fault escapes or a healthy run is alarmed. No configuration reaches the
faults: they are functions that are replaced for the time of one short run.
"""
LIMITS = """## What the checks cannot see

- `agreement` compares tokens that were sampled with the weights that the learner has. With
  `rollout.max_policy_lag_steps` above 0 there may be none in a batch; then `rayward doctor` compares.
- In bfloat16 rounding hides what is smaller than it: a mean difference of 0.1 nats, or a bias of 0.02, is allowed. In
  float32 it is 1e-4.
- `sibling answers` and `surprise` are statistics: small differences need many answers. Their limits (6 and 5 standard
  deviations) are such that chance alone does not raise them in the life of a run.
"""


def page() -> str:
    faults = [_fault(mutant) for mutant in MUTANTS]
    checks = _table(("check", "when", "compares"), ((name, when, what) for name, (when, what) in CHECKS.items()))
    return "\n".join([INTRODUCTION, "## The checks\n", checks, "## The faults\n", *faults, LIMITS])


def _fault(mutant: Mutant) -> str:
    lines = [f"### {mutant.name}\n", _sentence(mutant.fault), f"What one would see without the check: {mutant.unseen}."]
    if mutant.sources:
        lines.append(f"Others have met it, or its cause: {', '.join(map(_link, mutant.sources))}.")
    if mutant.caught_by:
        lines.append(f"Found by: {' or '.join(f'`{check}`' for check in mutant.caught_by)}.")
    if mutant.skipped:
        lines.append(f"Not run: {mutant.skipped}.")
    return "\n".join(lines) + "\n"


def _link(source: str) -> str:
    if source.startswith("arXiv:"):
        return f"[{source}](https://arxiv.org/abs/{source.removeprefix('arXiv:')})"
    repository, _, number = source.partition("#")
    return f"[{source}](https://github.com/{repository}/issues/{number})"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
