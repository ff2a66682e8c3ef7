"""The command line: `reeltune COMMAND`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from reeltune._quiet import freeze_imported
from reeltune._version import __version__
from reeltune.cli import config, definitions, files, keeping, models
from reeltune.cli.decode import decode
from reeltune.cli.generate import generate
from reeltune.cli.options import RootBefore
from reeltune.cli.output import print_error, say
from reeltune.cli.page import ui
from reeltune.cli.quantize import quantize
from reeltune.cli.stored import read_command
from reeltune.cli.usage import UsageError, explained
from reeltune.errors import Cancelled, ReeltuneError

app = typer.Typer(
    name="reeltune",
    help="From a finetune definition to a video: chooses, downloads, loads and runs finetuned video models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"reeltune {__version__}")
        raise typer.Exit


@app.callback()
def root_options(
    root: RootBefore = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


app.command("generate")(generate)
app.command("decode")(decode)
app.command("ui")(ui)
app.command("list")(models.list_models)
app.command("show")(models.show)
app.command("explain")(models.explain)
app.command("pull")(files.pull)
app.command("add")(files.add)
app.command("quantize")(quantize)
app.command("ls")(keeping.ls)
app.command("rm")(keeping.rm)
app.command("gc")(keeping.gc)
app.command("verify")(keeping.verify)
app.command("inspect")(files.inspect)
app.command("check")(definitions.check)
app.add_typer(config.config, name="config")
files.settings.command("read")(read_command)
app.add_typer(definitions.definitions, name="definitions")
app.add_typer(files.settings, name="settings")
app.add_typer(files.urls, name="urls")


def main(arguments: list[str] | None = None) -> None:
    """Run a command line; prints errors as what, why, next step, and exits with 1 (2: it couldn't be parsed)."""
    try:
        code = app(args=arguments, prog_name="reeltune", standalone_mode=False)
    except Cancelled as error:
        print_error(error)
        sys.exit(130)
    except ReeltuneError as error:
        print_error(error)
        sys.exit(1)
    except UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # which has printed the help
            print_error(explained(error))
        sys.exit(2)
    except typer.Abort:  # the end of the input, at a question
        print_error(ReeltuneError("Aborted: the question was not answered."))
        sys.exit(1)
    except BrokenPipeError:  # the reader went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        freeze_imported()  # the process ends: nothing is left to collect
    if isinstance(code, int) and code:
        sys.exit(code)
