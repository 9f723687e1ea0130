"""Whether the versions of a run fit where its store lies, told before the first one is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from deployments.weights.manifest import NoRoom

GIB = 1024**3


def needed_bytes(version_bytes: int, keep: int, readers: int) -> int:
    """Most bytes that a store holds at once: `keep` versions, and for each reader one that is pruned already and that
    it still holds.

    >>> needed_bytes(10, keep=4, readers=2)
    60
    """
    return version_bytes * (keep + readers)


def check_room(root: str, version_bytes: int, keep: int, readers: int) -> None:
    """Raises NoRoom when the file system of the folder `root` has less free bytes than its versions need. A URI is not
    checked: nobody tells how much an object store takes."""
    if "://" in root:
        return
    there = Path(root)
    while not there.exists():
        there = there.parent
    needed, free = needed_bytes(version_bytes, keep, readers), shutil.disk_usage(there).free
    if needed > free:
        raise NoRoom(
            f"the weight store {root} needs {needed / GIB:.1f} GiB ({keep} versions, {readers} more for the replicas, "
            f"{version_bytes / GIB:.2f} GiB each), but {there} has {free / GIB:.1f} GiB free: free some, keep fewer "
            "versions with weights.keep, or set weights.root to a folder with more room"
        )
