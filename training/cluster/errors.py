"""What can be wrong with the cluster around a command."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """Ray or the Serve application could not be started or reached; the message says what to do."""
