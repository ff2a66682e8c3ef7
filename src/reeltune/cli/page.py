"""`ui`: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reeltune.cli.options import Root
from reeltune.cli.output import say


def ui(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any other than this machine's own needs --auth-file.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, show_default=False, help="Port (default: the first free from 7860)."),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Also make a public URL through Gradio's servers.")] = False,
    auth_file: Annotated[
        Path | None,
        typer.Option(
            "--auth-file",
            show_default=False,
            help="File with one name:password a line, readable by you only; the page asks for them.",
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let others in without a password.")] = False,
    save_quantized: Annotated[
        bool,
        typer.Option(
            "--save-quantized", help="Keep what is quantized while loading, until the program ends (a preference, too)."
        ),
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only, not each job.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print each step of each job.")] = False,
    root: Root = None,
) -> None:
    """Open the web page: choose a model, make videos, create finetunes. Only this machine can reach it by default."""
    from reeltune.cli.logs import show_log
    from reeltune.definitions import resolve_root
    from reeltune.definitions.roots import prepare_root
    from reeltune.web.server import Serving, check, serve

    serving = Serving(host, port, share, auth_file, insecure, browser)
    check(serving)  # before the seconds that the rest takes
    show_log(quiet=quiet, verbose=verbose)
    folder = resolve_root(root)
    prepare_root(folder)
    serve(folder, serving, save_quantized=save_quantized, say=say)
