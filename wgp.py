"""For people used to `python wgp.py`: opens the page; with a command, forwards to the `reeltune` command line.

`--save-quantized` is taken before or after a command, as there. `--process FILE` makes the videos of a settings file or
a saved queue without the page: it is `reeltune run FILE`, with the same options `--dry-run` and `--output-dir DIR`.
"""

from __future__ import annotations

import sys

from reeltune.cli import main
from reeltune.cli.app import app

SAVE_QUANTIZED = "--save-quantized"
SAVING = ("generate", "run", "ui")  # commands that take it
ABOUT_ITSELF = ("-h", "--help", "--version")
PROCESS = "--process"


def with_process_as_command(arguments: list[str]) -> list[str]:
    """The arguments with `run FILE` in place of `--process FILE` or `--process=FILE`."""
    for index, argument in enumerate(arguments):
        if argument == PROCESS:
            return ["run", *arguments[:index], *arguments[index + 1 :]]
        if argument.startswith(f"{PROCESS}="):
            return ["run", argument.partition("=")[2], *arguments[:index], *arguments[index + 1 :]]
    return arguments


if __name__ == "__main__":
    arguments = with_process_as_command(sys.argv[1:])
    names = {row.name for row in (*app.registered_commands, *app.registered_groups)}
    command = next((argument for argument in arguments if argument in names), "")
    if not command and not set(arguments) & set(ABOUT_ITSELF):
        arguments, command = ["ui", *arguments], "ui"
    if SAVE_QUANTIZED in arguments:
        arguments = [argument for argument in arguments if argument != SAVE_QUANTIZED]
        if command in SAVING:
            arguments.insert(arguments.index(command) + 1, SAVE_QUANTIZED)
        else:
            print(f"{SAVE_QUANTIZED} does nothing for `{command}`: no quantized file will be written.", file=sys.stderr)
    main(arguments)
