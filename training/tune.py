"""A sweep: `python -m training.tune --config configs/sweep/NAME.yaml`. Ray Tune over whole runs, ASHA (arXiv
1810.05934) on the results in held-out situations.

What a trial owns, and what trials share:

- **Own**: the policy replicas (a Serve application with a name and an HTTP route of its own), weight store,
  coordinator, rollout workers, learner, run folder. A trial publishes a weight version a step, and a version is a
  number in one store: replicas that two trials shared would answer one of them with the other's weights.
- **Shared**: the Ray cluster, Serve's controller and HTTP port, and the start policy (built and warm-started once,
  before the first trial) unless the space varies something that it is made from; then each trial makes its own.

A trial that fails is a row of the table; the others go on. Ctrl-C and SIGTERM end the running trials in order, show
what there is, and exit with 130; a second one ends at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    from training.cli import run

    sys.exit(run(["sweep", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
