"""For people used to `python wgp.py`: opens the page; with a command, forwards to the `reeltune` command line.

`--save-quantized` is taken before or after a command, as there.
"""

from __future__ import annotations

import sys

from reeltune.cli import main
from reeltune.cli.app import app

SAVE_QUANTIZED = "--save-quantized"
SAVING = ("generate", "ui")  # commands that take it
ABOUT_ITSELF = ("-h", "--help", "--version")

if __name__ == "__main__":
    arguments = sys.argv[1:]
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
