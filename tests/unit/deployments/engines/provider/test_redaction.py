"""Keys are cut out of whatever is logged in the process, by whom ever."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from deployments.engines.provider.redaction import CUT, Redaction, redact_logs, secrets_of

KEY = "gemini-key-0123456789"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a handler of some library writes, with the redaction in place."""
    written = io.StringIO()
    make = logging.getLogRecordFactory()
    handler = logging.StreamHandler(written)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    redact_logs(Redaction([KEY]))
    yield written
    logging.setLogRecordFactory(make)
    logger.removeHandler(handler)


def test_the_secrets_of_an_environment_are_found_by_their_names() -> None:
    environment = {
        "OPENAI_API_KEY": "a" * 20,
        "HF_TOKEN": "b" * 20,
        "AWS_SECRET_ACCESS_KEY": "c" * 20,
        "vault_password": "d" * 20,
        "GROQ_API_KEY": "none",  # stands for no key
        "PATH": "/usr/bin:/bin",
        "KEYBOARD": "qwertyuiop",
    }

    assert sorted(secrets_of(environment)) == [letter * 20 for letter in "abcd"]


def test_a_secret_that_begins_another_leaves_no_rest_of_it() -> None:
    assert Redaction(["key-12345", "key-12345-and-more"])("is key-12345-and-more") == f"is {CUT}"


def test_a_key_in_a_message_or_its_arguments_is_cut_out(log: io.StringIO) -> None:
    logging.getLogger("some.library").warning("GET https://api/v1?key=%s", KEY)
    logging.getLogger("some.library").warning(f"key {KEY}")  # noqa: G004
    logging.getLogger("some.library").warning("%(headers)s", {"headers": {"authorization": f"Bearer {KEY}"}})

    assert KEY not in log.getvalue()
    assert log.getvalue().count(CUT) == 3


def test_a_key_in_a_traceback_is_cut_out(log: io.StringIO) -> None:
    try:
        raise ValueError(f"wrong key {KEY}")
    except ValueError:
        logging.getLogger("some.library").exception("failed")

    assert KEY not in log.getvalue()
    assert f"ValueError: wrong key {CUT}" in log.getvalue()


def test_all_else_is_logged_as_it_is(log: io.StringIO) -> None:
    logging.getLogger("some.library").warning("%d of %s", 3, ["a"])
    try:
        raise ValueError("plain")
    except ValueError:
        logging.getLogger("some.library").exception("failed")

    assert log.getvalue().startswith("3 of ['a']\nfailed\nTraceback")
    assert log.getvalue().count("ValueError: plain") == 1


def test_a_record_with_wrong_arguments_shows_no_key_either(
    log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("some.library").warning("%d of them", KEY)

    assert KEY not in log.getvalue() + capsys.readouterr().err
