"""What this machine's kernel says of memory: how much is available, and how much a command and all that it started
use."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from deployments.storage.owned import SHARED_MEMORY, Owner

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")  # the first line of each in smaps


def available_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Memory that can still be taken: the kernel's MemAvailable, or less where a control group (a container) limits it.
    None where there is no /proc."""
    try:
        rows = (proc / "meminfo").read_text().splitlines()
    except FileNotFoundError:
        return None
    machine = next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable:"))
    return min([machine, *_cgroup_rooms(proc, cgroup)])


def _cgroup_rooms(proc: Path, cgroup: Path) -> list[int]:
    """What is left below the limit of this process's control group and of each one above it."""
    rooms = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, used = cgroup, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            most, now = _text(group / limit).strip(), _text(group / used).strip()
            if most.isdigit() and now.isdigit():
                rooms.append(max(0, int(most) - int(now) + _file_cache(group)))
    return rooms


def _file_cache(group: Path) -> int:
    """Bytes of files that the kernel gives back when memory is asked for."""
    for line in _text(group / "memory.stat").splitlines():
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not there, or not ours to read
        return ""


class PeakMemory:
    """Most memory that this process and all that it started used at once, sampled by a thread while the context is
    open.

    Proportional set size: what processes share is counted once. Their files in shared memory (weight versions) are
    added, whether a process has them mapped or not. Between two samples a peak can be missed.
    """

    def __init__(self, every_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=10.0)

    def _sample(self) -> None:
        """Waits for: the next sample's time. Stops when: the context is left."""
        over = False
        while not over:
            self.peak_bytes = max(self.peak_bytes, used_bytes())
            over = self._over.wait(self._every_s)

    def __str__(self) -> str:
        return f"peak memory of all processes {self.peak_bytes / 1024**3:.1f} GiB"


def used_bytes() -> int:
    """Of this process and its descendants now, with their folders in shared memory."""
    mine = _family()
    sizes = [_proportional_bytes(pid) for pid in mine]
    return sum(sizes) + _shared_files(mine)


def _family() -> set[int]:
    """Process ids of this process and all its descendants."""
    parents: dict[int, int] = {}
    for folder in PROC.glob("[0-9]*"):
        fields = _text(folder / "stat").rpartition(")")[2].split()
        if fields:
            parents[int(folder.name)] = int(fields[1])
    me = int((PROC / "self").readlink().name)
    found, grew = {me}, True
    while grew:
        new = {pid for pid, parent in parents.items() if parent in found} - found
        found |= new
        grew = bool(new)
    return found


def _proportional_bytes(pid: int) -> int:
    """Of a process, without the files in our folders of shared memory that it has mapped (a replica that takes up a
    weight version maps it): those are counted as files."""
    found = [_proportional(line) for line in _text(PROC / str(pid) / "smaps_rollup").splitlines()]
    ours = str(SHARED_MEMORY / "rayward-")
    if ours in _text(PROC / str(pid) / "maps"):
        inside = False
        for line in _text(PROC / str(pid) / "smaps").splitlines():
            if MAPPING.match(line):
                inside = ours in line
            elif inside:
                found.append(-_proportional(line))
    return sum(found)


def _proportional(line: str) -> int:
    """Bytes in a line `Pss:  12 kB`; 0 in any other."""
    return int(line.split()[1]) * 1024 if line.startswith("Pss:") else 0


def _shared_files(pids: set[int]) -> int:
    """Each file once, however many hard links (readers' caches) it has."""
    sizes: dict[int, int] = {}
    for folder in SHARED_MEMORY.glob("rayward-*"):
        owner = Owner.of(folder)
        if owner is None or owner.pid not in pids:
            continue
        for path in folder.rglob("*"):
            try:
                status = path.lstat()
            except FileNotFoundError:  # pruned meanwhile
                continue
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
