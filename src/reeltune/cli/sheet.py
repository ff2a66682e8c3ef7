"""`sheet`: videos of several models, versions and LoRAs side by side."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._quiet import freeze_imported
from reeltune._text import counted
from reeltune.cli.calls import Assignments, Given, call_settings
from reeltune.cli.options import Device, Profile, Root, effective_preferences, open_catalog
from reeltune.cli.output import interruptible, print_line, print_notice, progress_display
from reeltune.files import expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reeltune.definitions import Catalog
    from reeltune.engine.sheet import MadeCells, SheetColumn, SheetRow

_SIXTEEN_BITS = ("bf16", "fp16")
_MAX_PROMPTS_BYTES = 1_000_000
_MAX_SEEDS = 100
_WIDTHS = (32, 2048)


def sheet(
    columns: Annotated[
        list[str],
        typer.Argument(
            metavar="COLUMN",
            show_default=False,
            help="What to compare, a column each: ID, ID@VERSION, ID+LORA or ID@VERSION+LORA:WEIGHT. VERSION: bf16, "
            "fp16, int8, int8-bf16 or int8-fp16 (default: the preferences). LORA: as for `generate --lora`; several: "
            "ID+A:0.5+B:1.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", show_default=False, help="File to write: .mp4, .webp or .png.")
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            show_default=False,
            help="Text file with a prompt in each line; empty lines and lines that begin with # are left out.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", show_default=False, help="A prompt; may be repeated (default: each definition's own)."
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Seeds, separated by commas. Each prompt is made with each.")
    ] = "1",
    assignments: Assignments = None,
    width: Annotated[int, typer.Option("--width", help="Width of a video on the sheet in pixels, at most.")] = 320,
    save_videos: Annotated[bool, typer.Option("--save-videos", help="Also save each video in outputs/.")] = False,
    device: Device = None,
    profile: Profile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    root: Root = None,
) -> None:
    """Make a test sheet: the same prompts and seeds with several models, versions or LoRAs, side by side.

    For example: reeltune sheet mine@bf16 mine@int8 --prompts prompts.txt --seeds 1,2 -o sheet.mp4

    Columns are what you compare, rows are prompts and seeds. Each model is loaded once.

    A video that can't be made is shown as failed with the reason. Exit code 1 if any failed.
    """
    from reeltune.engine.sheet import SheetRow
    from reeltune.media.sheet import check_sheet_path

    output = expand(output)
    check_sheet_path(output, overwrite=force)
    numbers = _seeds(seeds)
    texts: list[str | None] = [*(prompt or []), *([] if prompts is None else _prompts(prompts))] or [None]
    _check_size(len(columns), len(texts) * len(numbers), width)
    catalog = open_catalog(root)
    made_columns = [_column(catalog, text, assignments, device, profile) for text in columns]
    rows = [SheetRow(text, seed) for text in texts for seed in numbers]
    title = "  ".join(assignments or ["the settings of each definition"])
    failed = _make(made_columns, rows, output, _Options(title, width, save_videos))
    print_line(str(output))
    if failed:
        print_notice(f"{failed} of {counted(len(columns) * len(rows), 'video')} failed.")
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Options:
    title: str
    width: int
    save_videos: bool


def _make(columns: Sequence[SheetColumn], rows: Sequence[SheetRow], output: Path, options: _Options) -> int:
    """Make the videos and write the sheet; returns how many failed."""
    from reeltune import __version__
    from reeltune.cli.generate import save_video
    from reeltune.engine.engine import Engine
    from reeltune.engine.sheet import make_cells
    from reeltune.media.sheet import Sheet, write_sheet
    from reeltune.media.video import Video

    freeze_imported()
    with (
        tempfile.TemporaryDirectory(prefix="reeltune-sheet-") as folder,
        interruptible() as cancel,
        progress_display() as listener,
    ):

        def keep(engine: Engine, video: Video) -> None:
            save_video(video, lambda: engine.output_path(video), listener)

        made = make_cells(
            columns,
            rows,
            Path(folder),
            width=options.width,
            kind=output.suffix,
            keep=keep if options.save_videos else None,
            listener=listener,
            cancel=cancel,
        )
        sheet = Sheet(options.title, made.labels, [row.label for row in rows], made.cells)
        contents = {"columns": [column.label for column in columns], "rows": [row.label for row in rows]}
        metadata = {"program": f"reeltune {__version__}", "sheet": contents}
        write_sheet(output, sheet, metadata, print_notice)
        _forget(made)
    return made.failed


def _forget(made: MadeCells) -> None:
    """Drop the mapped frames, whose files are deleted next: some systems delete no file that is in use."""
    made.cells.clear()


def _column(
    catalog: Catalog, text: str, assignments: Sequence[str] | None, device: str | None, profile: str | None
) -> SheetColumn:
    """A column as it is written on the command line. Raises ReeltuneError's kinds for what can't be meant."""
    from reeltune.engine.sheet import SheetColumn
    from reeltune.errors import ReeltuneError

    id, version, loras = split_column(text, catalog)
    quantization, dtype = _version(version)
    try:
        definition = catalog[id]
        preferences = effective_preferences(catalog.root, quantization, dtype, device, profile)
        settings = call_settings(definition, preferences.model_folders, Given(assignments, None, loras, None, {}))
    except ReeltuneError as error:
        error.message = f"{text}: {error.message}"
        raise
    return SheetColumn(text, definition, preferences, settings)


def split_column(text: str, catalog: Catalog) -> tuple[str, str, list[str]]:
    """The id, the version and the LoRAs of a column; empty where it has none."""
    if text in catalog:
        return text, "", []
    model, plus, loras = text.partition("+")
    id, _, version = (model, "", "") if model in catalog else model.partition("@")
    return id, version, loras.split("+") if plus else []


def _version(version: str) -> tuple[str | None, str | None]:
    """The preferences that a version stands for: quantization and data type."""
    if not version:
        return None, None
    if version in _SIXTEEN_BITS:
        return "bf16", version
    quantization, _, dtype = version.partition("-")
    return quantization, dtype or None


def _seeds(text: str) -> list[int]:
    from reeltune.errors import SettingsError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or len(parts) > _MAX_SEEDS or not all(re.fullmatch(r"\d{1,10}", part) for part in parts):
        raise SettingsError(f"Invalid seeds {text[:80]!r}.", hint="Give numbers separated by commas, such as 1,2.")
    return [int(part) for part in parts]


def _prompts(path: Path) -> list[str]:
    from reeltune.errors import SettingsError
    from reeltune.files import read_bytes
    from reeltune.untrusted import clean_text

    text = clean_text(read_bytes(expand(path), _MAX_PROMPTS_BYTES).decode("utf-8-sig", "replace"))
    lines = [line.strip() for line in text.splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise SettingsError(f"{path} contains no prompt.", hint="Write one prompt in each line.")
    return prompts


def _check_size(columns: int, rows: int, width: int) -> None:
    from reeltune.errors import SettingsError
    from reeltune.media.sheet import MOST_CELLS

    if columns * rows > MOST_CELLS:
        message = f"The sheet would have {columns * rows:,} videos, and {MOST_CELLS} are possible."
        raise SettingsError(message, hint="Use fewer prompts, seeds or columns.")
    if not _WIDTHS[0] <= width <= _WIDTHS[1]:
        raise SettingsError(f"Invalid width {width}.", hint=f"Use {_WIDTHS[0]} to {_WIDTHS[1]} pixels.")
