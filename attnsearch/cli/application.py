"""The program as a whole: its name, and how it ends when something is wrong."""

from types import FunctionType
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from attnsearch.cli.console import fail
from attnsearch.cli.stopping import Stopped, stoppable
from attnsearch.errors import AttnsearchError
from attnsearch.lookup import EXAMPLE_MODEL
from attnsearch.plugins import COMMAND, loaded, plugins


class _Program(TyperGroup):
    """Knows the commands of other packages; turns what a user can mend into one line and code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *sorted(plugins(COMMAND).keys() - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None or cmd_name not in plugins(COMMAND):
            return found
        one = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        one.command(name=cmd_name)(loaded(COMMAND, cmd_name, FunctionType))
        return typer.main.get_command(one)

    def invoke(self, ctx: Any) -> Any:
        try:
            with stoppable():
                return super().invoke(ctx)
        except AttnsearchError as error:
            fail(str(error))
            raise typer.Exit(2) from error
        except BrokenPipeError as error:
            raise typer.Exit(0) from error  # the reader of a pipe has seen enough
        except OSError as error:
            fail(f"{error.filename or 'output'}: {error.strerror or error}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            fail("stopped; what was finished is kept, run the same command again to continue")
            raise typer.Exit(error.exit_code if isinstance(error, Stopped) else 130) from error
        except (MemoryError, RuntimeError) as error:
            # The names torch gives to it, without torch.
            of_torch = type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
            if not (isinstance(error, MemoryError) or of_torch):
                raise
            fail("out of memory; what was finished is kept")
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="A search engine for the attention maps of text-to-image diffusion transformers.",
    epilog=f"A first look:  attnsearch scan {EXAMPLE_MODEL}  |  "
    "attnsearch rank --metric relational",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # typer calls it with the flag
    if wanted:
        from importlib.metadata import version

        typer.echo(version("attnsearch"))
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version
