"""`rayward key`: a key is shown once, and the file holds its hash alone."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from configs.access import AccessConfig
from deployments.access.keys import Keys
from training.commands import app


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = app.run(["key", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def key_in(text: str) -> str:
    return next(word for word in text.split() if word.startswith("rw_"))


def test_a_new_key_opens_what_its_file_protects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.txt"

    keys = [key_in(shown(capsys, "new", name, "--file", str(file))[1]) for name in ("robot-1", "robot-2")]

    access = Keys.of(AccessConfig(keys_file=file), {})
    assert [access.check(key) for key in keys] == ["robot-1", "robot-2"]
    assert not [key for key in keys if key.rpartition("_")[2] in file.read_text()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_file_the_hash_is_shown_for_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, "new", "robot")

    line = next(word for word in out.split() if word.startswith("robot:$argon2id$"))
    assert code == 0
    assert Keys.of(AccessConfig(keys_variable="KEYS"), {"KEYS": line}).check(key_in(out)) == "robot"


def test_a_key_that_a_user_has_already_is_read_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# without an end of line")
    monkeypatch.setattr("sys.stdin", io.StringIO("the-key-of-the-old-server\n"))

    code, out, _ = shown(capsys, "hash", "old", "--file", str(file))

    assert (code, "the-key-of" in out) == (0, False)
    assert Keys.of(AccessConfig(keys_file=file), {}).check("the-key-of-the-old-server") == "old"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["new", "Robot 1"], "a key's name has at most 32 small letters"),
        (["hash", "robot"], "standard input must hold the key, of 16 to 512 characters"),
    ],
)
def test_what_makes_no_key_is_said(
    arguments: list[str], advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))

    code, _, err = shown(capsys, *arguments)

    assert (code, advice in err) == (1, True), err


def test_a_name_is_used_once_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.txt"
    shown(capsys, "new", "robot", "--file", str(file))
    before = file.read_text()

    code, out, err = shown(capsys, "new", "robot", "--file", str(file))

    assert (code, file.read_text(), "rw_" in out) == (1, before, False)
    assert "holds a key of the name robot already" in err


def test_a_server_without_the_keys_that_it_requires_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = tmp_path / "serve.yaml"
    file.write_text(
        "{policies: [{kind: provider, model: openai/gpt-4o}], check_memory: false,"
        f" http: {{host: 0.0.0.0}}, access: {{keys_file: {tmp_path / 'none.txt'}}}}}"
    )

    assert app.run(["serve", "--config", str(file)]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err
