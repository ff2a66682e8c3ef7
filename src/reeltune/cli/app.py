"""The command line: `reeltune COMMAND`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from reeltune._quiet import freeze_imported
from reeltune._version import __version__
from reeltune.cli import cleanup, config, definitions, files, models
from reeltune.cli.decode import decode
from reeltune.cli.generate import generate
from reeltune.cli.merge import extract_lora, merge
from reeltune.cli.options import RootBefore
from reeltune.cli.output import print_error, print_line
from reeltune.cli.profiles import list_profiles
from reeltune.cli.publish import publish
from reeltune.cli.quantize import quantize
from reeltune.cli.run import run
from reeltune.cli.serve import mcp, serve, ui
from reeltune.cli.shared import lock, update
from reeltune.cli.sheet import sheet
from reeltune.cli.stored import read_command
from reeltune.cli.usage import UsageError, explain_usage_error
from reeltune.cli.workers import workers
from reeltune.errors import Cancelled, ReeltuneError

app = typer.Typer(
    name="reeltune",
    help="Make videos with finetuned models: choose, download, quantize and run them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"reeltune {__version__}")
        raise typer.Exit


@app.callback()
def root_options(
    root: RootBefore = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that can be given before the command."""


app.command("generate")(generate)
app.command("run")(run)
app.command("sheet")(sheet)
app.command("decode")(decode)
app.command("ui")(ui)
app.command("serve")(serve)
app.command("mcp")(mcp)
app.command("list")(models.list_models)
app.command("show")(models.show)
app.command("profiles")(list_profiles)
app.command("explain")(models.explain)
app.command("pull")(files.pull)
app.command("add")(files.add)
app.command("quantize")(quantize)
app.command("publish")(publish)
app.command("update")(update)
app.command("lock")(lock)
app.command("merge")(merge)
app.command("extract-lora")(extract_lora)
app.command("ls")(cleanup.ls)
app.command("rm")(cleanup.rm)
app.command("gc")(cleanup.gc)
app.command("verify")(cleanup.verify)
app.command("inspect")(files.inspect)
app.command("check")(definitions.check)
app.add_typer(workers, name="workers")
app.add_typer(config.config, name="config")
files.settings.command("read")(read_command)
app.add_typer(definitions.definitions, name="definitions")
app.add_typer(files.settings, name="settings")
app.add_typer(files.urls, name="urls")


def main(arguments: list[str] | None = None) -> None:
    """Run a command line, by default the one of this process.

    Errors are printed with a hint. The exit code is then 1, 2 if the command line can't be parsed, and 130 if the
    command was cancelled.
    """
    try:
        code = app(args=arguments, prog_name="reeltune", standalone_mode=False)
    except Cancelled as error:
        print_error(error)
        sys.exit(130)
    except ReeltuneError as error:
        print_error(error)
        sys.exit(1)
    except UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # the help has been printed already
            print_error(explain_usage_error(error))
        sys.exit(2)
    except typer.Abort:  # the input ended at a question, or it was answered with no
        print_error(ReeltuneError("Cancelled: the question was not answered with yes."))
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        freeze_imported()  # the process ends, so the garbage collector has nothing to do
    if isinstance(code, int) and code:
        sys.exit(code)
