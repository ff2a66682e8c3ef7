"""For people used to `python wgp.py`: forwards to the `reeltune` command line.

`--save-quantized` is taken before or after the command, as there.
"""

from __future__ import annotations

import sys

from reeltune.cli import main

SAVE_QUANTIZED = "--save-quantized"

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != SAVE_QUANTIZED]
    if not arguments:
        print("The page isn't built yet; these are the commands:", file=sys.stderr)
        arguments = ["--help"]
    elif SAVE_QUANTIZED in sys.argv[1:]:
        if arguments[0] == "generate":
            arguments.insert(1, SAVE_QUANTIZED)
        else:
            print(f"{SAVE_QUANTIZED} counts for `generate` only.", file=sys.stderr)
    main(arguments)
