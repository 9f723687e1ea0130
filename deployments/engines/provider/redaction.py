"""Keeps API keys out of messages and logs: whatever a library prints, the keys of this process are cut out of it."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
SHORTEST_SECRET = 8  # characters; «none» or «EMPTY» in place of a key must not be cut out of every text
CUT = "[redacted]"


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of all variables whose names say that they are secret."""
    values = {value.strip() for name, value in environment.items() if SECRET_VARIABLE.search(name)}
    return tuple(value for value in values if len(value) >= SHORTEST_SECRET)


class Redaction:
    """Cuts the given secrets out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted(set(secrets), key=len, reverse=True)  # longest first: one may begin another

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, CUT)
        return text

    def record(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record without secrets, in its message and in the exception that it shows."""
        try:
            message = record.getMessage()
        except Exception:  # wrong arguments: logging's own handlers report them, without the arguments' values
            record.msg, record.args = self(str(record.msg)), ()
            return record
        if (clean := self(message)) != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if (clean := self(text)) != text:
                record.exc_info, record.exc_text = None, clean
        return record


def redact_logs(redaction: Redaction) -> None:
    """All records that this process makes from now on, by whatever logger, go through `redaction`."""
    make = logging.getLogRecordFactory()

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return redaction.record(make(*args, **kwargs))

    logging.setLogRecordFactory(redacted)
