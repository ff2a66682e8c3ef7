"""Options that several commands share, and the catalog and preferences that result from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.output import print_notice

if TYPE_CHECKING:
    from reeltune.definitions import Catalog
    from reeltune.preferences import Preferences

_MAX_NAMES = 5  # file names in a notice
_ROOT_HELP = "Working folder with finetunes/, ckpts/, settings/ and outputs/ (default: the current folder)."


def _root(context: typer.Context, root: Path | None) -> Path | None:
    """The root given after the command, otherwise the one before it, otherwise the one in the environment."""
    root_before: Path | None = context.find_root().params.get("root")
    source = context.get_parameter_source("root")
    given_after_command = source is not None and source.name == "COMMANDLINE"
    if given_after_command or root_before is None:
        return root
    return root_before


RootBefore = Annotated[Path | None, typer.Option("--root", show_default=False, help=_ROOT_HELP)]
Root = Annotated[
    Path | None, typer.Option("--root", envvar="REELTUNE_ROOT", show_default=False, help=_ROOT_HELP, callback=_root)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quantization = Annotated[
    str | None,
    typer.Option("--quantization", show_default=False, help="Quantization: int8, fp8, or bf16 for 16 bits."),
]
DType = Annotated[
    str | None, typer.Option("--dtype", show_default=False, help="Data type to compute in: auto, bf16 or fp16.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", show_default=False, help="Device: auto, cpu, mps, cuda, or one GPU such as cuda:1."),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        show_default=False,
        help="Memory profile: auto, or resident, stages, streamed, minimum. "
        "The first is the fastest, the last needs the least memory.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", show_default=False, help="Number of CPU threads; 0 chooses by the size of the video."),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        show_default=False,
        metavar="auto|N|DEVICES",
        help="Worker processes, which make videos at the same time: auto (one for each NVIDIA card), a number, or "
        "devices such as cuda:0,cuda:1 or cpu (default: one).",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        show_default=False,
        metavar="ADDRESS|local",
        help="Make the videos on the cards of a Ray cluster, such as 10.0.0.1:6379 (see docs/cluster.md).",
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a definition: its file name without .json.")]


def open_catalog(root: Path | None, *, quiet: bool = False) -> Catalog:
    """The catalog of the root. Definitions that can't be read are reported, unless `quiet`, and left out."""
    from reeltune.definitions import load_catalog

    catalog = load_catalog(root)
    if quiet:
        return catalog
    for problem in catalog.unread:
        print_notice(f"{problem.message} {problem.fix}".strip())
    if catalog.broken:
        count = counted(len(catalog.broken), "definition")
        names = ", ".join(path.name for path in list(catalog.broken)[:_MAX_NAMES])
        print_notice(f"{count} can't be read: {names}. `reeltune check` shows the problems.")
    return catalog


def effective_preferences(
    root: Path,
    quantization: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    profile: str | None = None,
    threads: int | None = None,
) -> Preferences:
    """The preferences of the root, with the options of the command line applied; prints notices about them.

    Raises PreferencesError for an invalid value, DeviceError for a `--device` that this machine doesn't have.
    """
    from reeltune.preferences import load_preferences

    stored, notices = load_preferences(root)
    for line in notices:
        print_notice(line)
    preferences = stored.with_flags(
        quantization=quantization, dtype=dtype, device=device, memory_profile=profile, threads=threads
    )
    if device is not None:
        from reeltune.machine import probe

        probe().check_device(preferences.device)
    return preferences
