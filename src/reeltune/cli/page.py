"""`ui`: serve the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reeltune.cli.options import Root
from reeltune.cli.output import print_line


def ui(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; addresses that others can reach need --auth-file.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            show_default=False,
            help="Port to listen on (default: the first free port from 7860).",
        ),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Create a public URL through Gradio's servers.")] = False,
    auth_file: Annotated[
        Path | None,
        typer.Option(
            "--auth-file",
            show_default=False,
            help="File that only you can read, with one name:password per line; visitors must log in.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow others to use the page without a password.")
    ] = False,
    save_quantized: Annotated[
        bool,
        typer.Option(
            "--save-quantized",
            help="Also save models that are quantized while loading. The option applies to this run of the server.",
        ),
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open the page in a browser.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every step of every job.")] = False,
    root: Root = None,
) -> None:
    """Open the web page to choose models, make videos and create finetunes.

    By default, only this machine can reach it.
    """
    from reeltune.cli.logs import show_log
    from reeltune.definitions import resolve_root
    from reeltune.definitions.roots import prepare_root
    from reeltune.web.server import Serving, check, serve

    serving = Serving(host, port, share, auth_file, insecure, browser)
    check(serving)  # fails fast, before the imports and the server take seconds
    show_log(quiet=quiet, verbose=verbose)
    folder = resolve_root(root)
    prepare_root(folder)
    serve(folder, serving, save_quantized=save_quantized, say=print_line)
