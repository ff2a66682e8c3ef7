"""`serve`, `ui` and `mcp`: serve the HTTP API, the web page, and the tools of assistants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import Ray, Root, Workers
from reeltune.cli.output import print_line
from reeltune.errors import ServeError

if TYPE_CHECKING:
    from reeltune.server.serving import Serving

Host = Annotated[
    str, typer.Option("--host", help="Address to listen on; one that others can reach needs a password or a key.")
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1,
        max=65535,
        show_default=False,
        help="Port to listen on (default: the first free port from 7860).",
    ),
]
AuthFile = Annotated[
    Path | None,
    typer.Option(
        "--auth-file",
        show_default=False,
        help="File that only you can read, with one name:password per line; visitors of the page must log in.",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        show_default=False,
        help="File that only you can read, with one key per line; programs must send one of them.",
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow others to use everything without a password or key.")]
SaveQuantized = Annotated[
    bool,
    typer.Option(
        "--save-quantized",
        help="Also save models that are quantized while loading. The option applies to this run of the server.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print every step of every job.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = None,
    api_key_file: ApiKeyFile = None,
    auth_file: AuthFile = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether the web page is served as well.")] = True,
    insecure: Insecure = False,
    workers: Workers = None,
    ray: Ray = None,
    save_quantized: SaveQuantized = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    root: Root = None,
) -> None:
    """Serve the HTTP API, whose videos OpenAI's clients can make, and the web page.

    By default, only this machine can reach it. The API is described at /docs.
    """
    from reeltune.server.serving import Serving

    serving = Serving(
        host=host, port=port, auth_file=auth_file, insecure=insecure, api_key_file=api_key_file, page=page
    )
    _serve(serving, workers, ray, save_quantized=save_quantized, quiet=quiet, verbose=verbose, root=root)


def ui(
    host: Host = "127.0.0.1",
    port: Port = None,
    share: Annotated[bool, typer.Option("--share", help="Create a public URL through Gradio's servers.")] = False,
    auth_file: AuthFile = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    workers: Workers = None,
    ray: Ray = None,
    save_quantized: SaveQuantized = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open the page in a browser.")
    ] = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
    root: Root = None,
) -> None:
    """Open the web page to choose models, make videos and create finetunes.

    By default, only this machine can reach it. The HTTP API is served as well, as by `reeltune serve`.
    """
    from reeltune.server.serving import Serving

    serving = Serving(host, port, share, auth_file, insecure, browser, api_key_file)
    _serve(serving, workers, ray, save_quantized=save_quantized, quiet=quiet, verbose=verbose, root=root)


def _serve(
    serving: Serving,
    workers: str | None,
    ray: str | None,
    *,
    save_quantized: bool,
    quiet: bool,
    verbose: bool,
    root: Path | None,
) -> None:
    from reeltune.cli.logs import show_log
    from reeltune.definitions import resolve_root
    from reeltune.definitions.roots import prepare_root
    from reeltune.server.serving import check
    from reeltune.server.serving import serve as serve_until_stopped

    check(serving)  # fails fast, before the imports and the server take seconds
    show_log(quiet=quiet, verbose=verbose)
    folder = resolve_root(root)
    prepare_root(folder)
    serve_until_stopped(folder, serving, workers=workers, ray=ray, save_quantized=save_quantized, say=print_line)


def mcp(root: Root = None) -> None:
    """Offer the tools list_models, get_model, generate, get_job and cancel_job to an assistant, over stdin and stdout.

    Assistants that speak MCP start this command themselves.

    Where a server already makes the videos of the root, the jobs are added to its queue.
    """
    from reeltune.definitions import resolve_root
    from reeltune.definitions.roots import prepare_root

    try:
        from reeltune.api.stdio import serve_stdio
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ServeError("MCP needs an extra package.", hint="Install it with: pip install 'reeltune[mcp]'") from error
    folder = resolve_root(root)
    prepare_root(folder)
    serve_stdio(folder)
