"""API keys: made here, kept as argon2id hashes, and checked without holding up the event loop.

A key reads `rw_NAME_SECRET`. The name is not secret: it says which one hash a key must match, so that a wrong key costs
at most one hash. Keys that users brought along have any form, and are tried against every hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from configs.access import KEY_NAME, AccessConfig, key_hashes
from configs.base import ConfigError
from deployments.errors import PolicyError

ANONYMOUS = ""  # the name of a caller where no keys are required
SECRET_BYTES = 24  # 192 random bits: nobody guesses them, whatever the hash costs
LONGEST_KEY = 512  # characters; a longer one is wrong without being hashed
REMEMBERED_KEYS = 1024  # known ones, and as many wrong ones; each as a keyed digest
MOST_WAITING = 64  # different unknown keys that wait for their hash
FAILURE_WINDOW_S = 60.0
# OWASP's second choice for argon2id: 19 MiB and about 30 ms. Only one hash is computed at a time.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
MADE_HERE = re.compile(rf"rw_(?P<name>{KEY_NAME})_[0-9a-f]{{{2 * SECRET_BYTES}}}")
WRONG = "missing or invalid API key"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, which is shown once, and the line that the server keeps of it."""

    key: str
    line: str


def new_key(name: str) -> NewKey:
    """A random key. Raises ConfigError for a name that cannot stand in one."""
    check_name(name)
    key = f"rw_{name}_{secrets.token_hex(SECRET_BYTES)}"
    return NewKey(key, hashed_line(name, key))


def hashed_line(name: str, key: str) -> str:
    """NAME:HASH of a key, also of one that was not made here. Raises ConfigError for a name that cannot be used."""
    check_name(name)
    return f"{name}:{HASHER.hash(key)}"


def check_name(name: str) -> None:
    if not re.fullmatch(KEY_NAME, name):
        raise ConfigError(
            f"a key's name has at most 32 small letters, digits and hyphens, and does not begin with a hyphen; "
            f"got {name!r}"
        )


def from_authorization(header: str | None) -> str | None:
    """The key in an Authorization header, `Bearer K` or `Api-Key K` in any case; None for anything else.

    >>> from_authorization("Bearer abc"), from_authorization("api-key abc"), from_authorization("Basic abc")
    ('abc', 'abc', None)
    """
    scheme, _, key = (header or "").strip().partition(" ")
    return key.strip() or None if scheme.lower() in ("bearer", "api-key") else None


class Keys:
    """The keys of one application, checked in one process. Without hashes it lets everybody in.

    A hash takes tens of milliseconds, so the outcome for a key is remembered, under a digest whose own key is random
    and never leaves this process: comparing digests tells nothing about the keys, whatever time it takes. Unknown keys
    are hashed one after the other in a thread of their own. What guessing can cost is bounded by that, and by
    `failures_per_minute` wrong keys for one name; neither touches a caller whose key is known already.
    """

    def __init__(
        self, hashes: Mapping[str, str], failures_per_minute: int = 60, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hashes = dict(hashes)
        self._failures_per_minute = failures_per_minute
        self._clock = clock
        self._digest_key = secrets.token_bytes(32)
        self._known_keys: OrderedDict[bytes, str] = OrderedDict()  # digest -> name
        self._wrong_keys: OrderedDict[bytes, None] = OrderedDict()  # apart: guesses push out no known key
        self._failures: dict[str, deque[float]] = {}  # claimed name -> times of wrong keys
        self._waiting: dict[bytes, asyncio.Future[str | None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")

    @classmethod
    def of(cls, access: AccessConfig, environment: Mapping[str, str] = os.environ) -> Keys:
        """The configured keys. Raises ConfigError when they are required and cannot be read."""
        hashes = key_hashes(access, environment)
        for name, hashed in hashes.items():
            try:
                extract_parameters(hashed)
            except InvalidHashError as error:
                raise ConfigError(f"the hash of API key {name} is damaged: make the key again") from error
        return cls(hashes, access.failures_per_minute)

    @property
    def required(self) -> bool:
        return bool(self._hashes)

    def check(self, presented: str | None) -> str:
        """The name of the key's owner, as `authenticate`, but a key that is new here holds up the calling thread."""
        name = self._known(presented)
        if name is None:
            assert presented is not None
            name = self._concluded(presented, self._verified(presented))
        return name

    async def authenticate(self, presented: str | None) -> str:
        """The name of the key's owner, ANONYMOUS where no keys are required.

        Raises PolicyError: "unauthenticated", and "overloaded" when too many unknown keys were tried.
        """
        name = self._known(presented)
        if name is not None:
            return name
        assert presented is not None
        digest = self._digest(presented)
        verifying = self._waiting.get(digest)  # many clients with one new key: hashed once
        if verifying is None:
            if len(self._waiting) >= MOST_WAITING:
                raise PolicyError("overloaded", "too many unknown API keys at a time: try again", retry_after_s=1.0)
            verifying = asyncio.get_running_loop().run_in_executor(self._thread, self._verified, presented)
            self._waiting[digest] = verifying
            verifying.add_done_callback(lambda _: self._waiting.pop(digest, None))
        return self._concluded(presented, await asyncio.shield(verifying))

    def _known(self, presented: str | None) -> str | None:
        """The owner's name where it takes no hash to tell; None: it takes one. Raises PolicyError."""
        if not self.required:
            return ANONYMOUS
        if not presented or len(presented) > LONGEST_KEY:
            raise PolicyError("unauthenticated", WRONG)
        digest = self._digest(presented)
        if digest in self._wrong_keys:
            raise PolicyError("unauthenticated", WRONG)
        if digest in self._known_keys:
            self._known_keys.move_to_end(digest)
            return self._known_keys[digest]
        claimed = _claimed_name(presented)
        if claimed and claimed not in self._hashes:
            raise PolicyError("unauthenticated", WRONG)
        self._refuse_guessing(claimed)
        return None

    def _verified(self, presented: str) -> str | None:
        """The name whose hash the key matches; None: it matches none."""
        claimed = _claimed_name(presented)
        candidates = {claimed: self._hashes[claimed]} if claimed in self._hashes else self._hashes
        return next((name for name, hashed in candidates.items() if _matches(hashed, presented)), None)

    def _concluded(self, presented: str, name: str | None) -> str:
        digest = self._digest(presented)
        if name is not None:
            self._known_keys[digest] = name
            _shorten(self._known_keys)
            return name
        if digest not in self._wrong_keys:
            self._failures.setdefault(_claimed_name(presented), deque()).append(self._clock())
            self._wrong_keys[digest] = None
            _shorten(self._wrong_keys)
        raise PolicyError("unauthenticated", WRONG)

    def _refuse_guessing(self, claimed: str) -> None:
        failures = self._failures.get(claimed, deque())
        while failures and failures[0] <= self._clock() - FAILURE_WINDOW_S:
            failures.popleft()
        if len(failures) >= self._failures_per_minute:
            wait_s = failures[0] + FAILURE_WINDOW_S - self._clock()
            raise PolicyError("overloaded", "too many wrong API keys: try again later", retry_after_s=wait_s)

    def _digest(self, presented: str) -> bytes:
        return hashlib.blake2b(_bytes(presented), key=self._digest_key, digest_size=32).digest()


def _claimed_name(presented: str) -> str:
    """The owner that a key made here names; empty for any other key."""
    match = MADE_HERE.fullmatch(presented)
    return match["name"] if match else ""


def _shorten(digests: OrderedDict[bytes, Any]) -> None:
    while len(digests) > REMEMBERED_KEYS:
        digests.popitem(last=False)


def _matches(hashed: str, presented: str) -> bool:
    try:
        return HASHER.verify(hashed, _bytes(presented))
    except (VerificationError, InvalidHashError):
        return False


def _bytes(presented: str) -> bytes:
    """Headers may hold what is no text: it makes a wrong key, not an exception."""
    return presented.encode(errors="surrogatepass")
