"""Flags that mean the same everywhere, and what commands make of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.output import notice

if TYPE_CHECKING:
    from reeltune.definitions import Catalog
    from reeltune.preferences import Preferences

_ROOT_HELP = "Working folder with finetunes/, ckpts/, settings/, outputs/ (default: the current folder)."


def _root(context: typer.Context, given: Path | None) -> Path | None:
    """The root given after the command, else before it, else in the environment."""
    before: Path | None = context.find_root().params.get("root")
    source = context.get_parameter_source("root")
    return given if before is None or (source is not None and source.name == "COMMANDLINE") else before


RootBefore = Annotated[Path | None, typer.Option("--root", show_default=False, help=_ROOT_HELP)]
Root = Annotated[
    Path | None, typer.Option("--root", envvar="REELTUNE_ROOT", show_default=False, help=_ROOT_HELP, callback=_root)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Quantization = Annotated[
    str | None, typer.Option("--quantization", show_default=False, help="int8, or bf16 for 16 bits.")
]
DType = Annotated[
    str | None, typer.Option("--dtype", show_default=False, help="Data type to compute in: auto, bf16 or fp16.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", show_default=False, help="auto, cpu, mps, cuda, or one card: cuda:1."),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", show_default=False,
        help="Memory profile: auto, resident, stages, streamed or minimum, from fastest to smallest.",
    ),
]  # fmt: skip
Threads = Annotated[
    int | None,
    typer.Option("--threads", show_default=False, help="CPU threads to compute with; 0 chooses by the video's size."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a definition: its file name without .json.")]


def open_catalog(root: Path | None, *, quiet: bool = False) -> Catalog:
    """The catalog of the root; files that aren't read are named once, unless `quiet`, and don't stop anything."""
    from reeltune.definitions import load_catalog

    catalog = load_catalog(root)
    if quiet:
        return catalog
    for problem in catalog.unread:
        notice(f"{problem.message} {problem.fix}".strip())
    if catalog.broken:
        names = ", ".join(path.name for path in list(catalog.broken)[:5])
        notice(f"{len(catalog.broken)} definition(s) can't be read and are set aside: {names}. See `reeltune check`.")
    return catalog


def wishes(
    root: Path,
    quantization: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    profile: str | None = None,
    threads: int | None = None,
) -> Preferences:
    """The root's preferences, replaced by the options that were given; notices about them are printed.

    Raises PreferencesError for an invalid value, DeviceError for a `--device` that this machine doesn't have.
    """
    from reeltune.preferences import load_preferences

    preferences, notices = load_preferences(root)
    for line in notices:
        notice(line)
    chosen = preferences.with_flags(
        quantization=quantization, dtype=dtype, device=device, memory_profile=profile, threads=threads
    )
    if device is not None:
        from reeltune.machine import probe

        probe().check_device(chosen.device)
    return chosen
