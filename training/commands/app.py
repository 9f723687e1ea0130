"""The commands: `rayward train | warmstart | bc | eval | compare | sweep | play | doctor | serve | load |
unload | key | envs | export`.

Libraries are imported inside a command, so that the base installation can say which extra is missing."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from configs.base import UserError
from configs.dotenv import FILE, load_variables
from envs.base import EnvUsageError
from training.cluster.quiet import quiet_libraries
from training.commands.bc import bc
from training.commands.environments import list_environments
from training.commands.evaluate import compare, doctor, evaluate_models
from training.commands.export import export
from training.commands.key import key
from training.commands.load import load, unload
from training.commands.play import play
from training.commands.serve import serve
from training.commands.train import sweep, train, warmstart

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (train, sweep, warmstart, bc, compare, serve, load, unload, play, doctor, export):
    app.command()(command)
app.command("eval")(evaluate_models)
app.command("envs")(list_environments)
app.add_typer(key, name="key")


@app.callback()
def everywhere(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of every error")] = False,
) -> None:
    """Train policies by GRPO in environments, and serve them, on one Ray cluster."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Exit code of a command: 0; 1 for an error that a user can mend (its message on stderr, with --debug after its
    traceback); 2 for a wrong option; 130 for Ctrl-C. Any other exception is raised: it is a defect."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given  # wherever it stands
    quiet_libraries()
    try:
        if names := load_variables():
            print(f"from {FILE}: {', '.join(names)}", file=sys.stderr)
        # Without standalone mode typer.Exit and Ctrl-C do not arrive here: their code is what the call returns.
        code = app([argument for argument in given if argument != "--debug"], standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except typer.Abort:  # a question that was left without an answer
        return 1
    except ModuleNotFoundError as error:
        if debug:
            raise
        print(f"{error.name} is not installed: pip install 'rayward[cpu,train]'", file=sys.stderr)
        return 1
    except (UserError, EnvUsageError) as error:
        if debug:
            traceback.print_exception(error)
        print(f"rayward: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if not hasattr(error, "show"):
            raise
        error.show()  # a usage error of the command line
        return 2
    return code if isinstance(code, int) else 0


def main() -> None:
    sys.exit(run())
