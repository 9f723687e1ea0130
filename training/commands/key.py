"""`rayward key new | hash`: API keys of a served policy."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from configs.access import HASHED_KEY
from configs.base import ConfigError
from training.commands.options import console

NameArgument = Annotated[str, typer.Argument(help="whose key it is: small letters, digits, hyphens")]
FileOption = Annotated[Path | None, typer.Option("--file", help="add the hash to this file (access.keys_file)")]

key = typer.Typer(no_args_is_help=True, help="API keys: who may call a served policy.")


@key.command()
def new(name: NameArgument, file: FileOption = None) -> None:
    """Makes a key and shows it once; the server needs only its hash."""
    from deployments.access.keys import new_key

    made = new_key(name)
    _keep(made.line, file)
    console.print(f"key of {name}, shown only now: {made.key}", soft_wrap=True, markup=False, highlight=False)


@key.command("hash")
def hash_key(name: NameArgument, file: FileOption = None) -> None:
    """Makes the hash of a key that you have already, which is read from standard input."""
    from deployments.access.keys import LONGEST_KEY, hashed_line

    given = (getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not 16 <= len(given) <= LONGEST_KEY:
        raise ConfigError(f"standard input must hold the key, of 16 to {LONGEST_KEY} characters, on one line")
    _keep(hashed_line(name, given), file)


def _keep(line: str, file: Path | None) -> None:
    """Adds the hash to the file, which only its owner can read, or shows it."""
    if file is None:
        console.print(f"hash, for access.keys_file: {line}", soft_wrap=True, markup=False, highlight=False)
        return
    name = line.partition(":")[0]
    earlier = file.read_text().splitlines() if file.exists() else []
    if any((match := HASHED_KEY.fullmatch(each.strip())) and match["name"] == name for each in earlier):
        raise ConfigError(f"{file} holds a key of the name {name} already: take that line out, or choose another name")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        if earlier and not file.read_text().endswith("\n"):
            opened.write("\n")
        opened.write(f"{line}\n")
    console.print(f"hash of {name} added to {file}", soft_wrap=True, markup=False, highlight=False)
