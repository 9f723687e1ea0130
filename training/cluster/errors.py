"""What can be wrong with the cluster around a command."""

from __future__ import annotations

from configs.base import UserError


class ClusterError(UserError):
    """Ray or the Serve application could not be started or reached; the message says what to do."""
