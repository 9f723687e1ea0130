"""`rayward load | unload`: policies of an application that is running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from configs.base import ConfigError
from configs.serving import LoadedPolicy
from training.commands.options import KeyFileOption, console, read_key

FileArgument = Annotated[Path, typer.Argument(help="YAML file with one policy, as under `policies` of a configuration")]
NameArgument = Annotated[str, typer.Argument(help="name of the policy")]
AddressOption = Annotated[str, typer.Option("--address", help="where the application listens")]
WaitOption = Annotated[float, typer.Option("--wait-s", min=0, help="seconds that it may take")]
HERE = "http://127.0.0.1:8000"


def load(
    file: FileArgument, address: AddressOption = HERE, key_file: KeyFileOption = None, wait_s: WaitOption = 600.0
) -> None:
    """Loads a policy into the running application; returns once it answers."""
    from configs.base import read_yaml
    from deployments.client.policies import PoliciesClient

    if not file.is_file():
        raise ConfigError(f"no such file: {file}")
    policy = LoadedPolicy.parse({"policy": read_yaml(file)}, source=str(file)).policy
    with PoliciesClient(address, read_key(key_file)) as client:
        client.load(policy.name, policy.model_dump(mode="json"), wait_s)
    console.print(f"{policy.name} answers at {address}", soft_wrap=True, markup=False, highlight=False)


def unload(
    name: NameArgument, address: AddressOption = HERE, key_file: KeyFileOption = None, wait_s: WaitOption = 120.0
) -> None:
    """Unloads a policy of the running application; returns once what it was asked before is answered and it is gone."""
    from deployments.client.policies import PoliciesClient

    with PoliciesClient(address, read_key(key_file)) as client:
        client.unload(name, wait_s)
    console.print(f"{name} is unloaded", soft_wrap=True, markup=False, highlight=False)
