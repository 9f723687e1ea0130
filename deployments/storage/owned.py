"""Folders in shared memory and in the temporary folder that belong to one process, and end with it.

The owner stands in the folder's name: `rayward-{what}-{pid}-{start}-{place}-{rest}`. A process that is killed cannot
remove what it made; `take_back`, which every process calls that makes such a folder, removes what the dead left.
Whether an owner is dead is read from the kernel, never guessed from the folder's age.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("rayward")

SHARED_MEMORY = Path("/dev/shm")
NAME = re.compile(r"rayward-[a-z]+-(?P<pid>\d+)-(?P<start>\d+)-(?P<place>[0-9a-f]{8})-.+")
START_FIELD = 19  # of /proc/PID/stat behind the program's name: ticks from the boot to the start of the process


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. Its number alone does not name it, because numbers are used again: so does its start time, and `place`
    says which kernel and which pid namespace (container) counted them."""

    pid: int
    start: int
    place: str

    @classmethod
    def current(cls) -> Owner:
        """Start 0 where there is no /proc: then nobody can tell whether an owner lives, and nothing is taken back."""
        return cls(os.getpid(), _started(os.getpid()) or 0, _place())

    @classmethod
    def of(cls, folder: Path) -> Owner | None:
        """Who made `folder`; None when its name does not say."""
        found = NAME.fullmatch(folder.name)
        return cls(int(found["pid"]), int(found["start"]), found["place"]) if found else None

    def is_dead(self) -> bool:
        """False for a process of another place, too: nobody can tell from here."""
        return self.start > 0 and self.place == _place() and _started(self.pid) != self.start


def name_for(what: str, rest: str) -> str:
    """The name of a folder of this process. `what` is one lower-case word."""
    owner = Owner.current()
    return f"rayward-{what}-{owner.pid}-{owner.start}-{owner.place}-{rest}"


class OwnedFolder:
    """A fresh folder of this process. It goes with `remove`, with the end of the object or of the interpreter, and
    after a SIGKILL when the next process of this user makes one in the same parent."""

    def __init__(self, what: str, parent: Path | None = None) -> None:
        """`parent`: None for the temporary folder. Raises OSError when it cannot be written."""
        parent = parent or Path(tempfile.gettempdir())
        take_back([parent])
        self.path = parent / name_for(what, uuid.uuid4().hex[:12])
        self.path.mkdir(mode=0o700)
        self._end = weakref.finalize(self, _remove, self.path, os.getpid())

    def remove(self) -> None:
        self._end()


@functools.cache
def of_process(what: str, parent: Path | None = None) -> OwnedFolder:
    """The one folder for this purpose that lives as long as the process."""
    return OwnedFolder(what, parent)


def take_back(parents: Iterable[Path] | None = None) -> list[Path]:
    """Removes the folders of dead owners from `parents` (default: shared memory and the temporary folder) and returns
    them. What belongs to another user, to a living process or to another place stays."""
    taken = []
    for parent in dict.fromkeys(parents or (SHARED_MEMORY, Path(tempfile.gettempdir()))):
        for folder in parent.glob("rayward-*"):
            owner = Owner.of(folder)
            if owner is not None and owner.is_dead() and _is_ours(folder):
                shutil.rmtree(folder, ignore_errors=True)
                taken.append(folder)
    if taken:
        logger.info("took back what killed processes left: %s", ", ".join(map(str, taken)))
    return taken


def memory_or_temporary() -> Path:
    """The machine's shared memory where it can be written, else its temporary folder."""
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


def _remove(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child inherits the finalizer and not the folder
        shutil.rmtree(path, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:  # another starter was quicker
        return False
    return status.st_uid == os.getuid() and not folder.is_symlink()


def _started(pid: int) -> int | None:
    """Ticks from the boot to the start of a living process; None for none, for a dead one that nobody has waited for,
    and where there is no /proc."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[START_FIELD - 1])


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return "0" * 8
    return hashlib.blake2b(f"{boot}{namespace}".encode(), digest_size=4).hexdigest()
