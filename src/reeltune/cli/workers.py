"""`workers`: what the workers of a running server do, and asking one of them to run no more jobs."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import AsJson, Root
from reeltune.cli.output import print_json, print_line, print_notice, print_table

if TYPE_CHECKING:
    from reeltune.jobs.roster import WorkerRequest, WorkerRow

workers = typer.Typer(name="workers", invoke_without_command=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a worker, as `reeltune workers` shows it.")]


@workers.callback(invoke_without_command=True)
def list_workers(context: typer.Context, root: Root = None, as_json: AsJson = False) -> None:
    """Show the workers of the program that makes the videos of a root: its state, its job, and what it holds."""
    if context.invoked_subcommand is not None:
        return
    from reeltune.definitions import resolve_root
    from reeltune.jobs.roster import Roster

    folder = resolve_root(root)
    rows = Roster.of(folder).rows() if _has_queue(folder) and _is_run(folder) else []
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        print_line("No workers are running. `reeltune serve`, `ui` and `run` start them.")
        return
    print_table(("NAME", "DEVICE", "NODE", "STATE", "SINCE", "JOB", "HOLDS", "MEMORY"), [_cells(row) for row in rows])
    for row in rows:
        if row.problem:
            print_notice(f"{row.name} ended by itself, and is started again when it is needed: {row.problem}")


@workers.command("drain")
def drain(name: Name, root: Root = None) -> None:
    """Let a worker run no job after its current one. It keeps what it holds."""
    from reeltune.jobs.roster import WorkerRequest

    _ask(root, name, WorkerRequest.DRAIN)


@workers.command("end")
def end(name: Name, root: Root = None) -> None:
    """Let a worker run no job after its current one, and then release its memory."""
    from reeltune.jobs.roster import WorkerRequest

    _ask(root, name, WorkerRequest.END)


@workers.command("resume")
def resume(name: Name, root: Root = None) -> None:
    """Let a worker that was drained or ended run jobs again."""
    from reeltune.jobs.roster import WorkerRequest

    _ask(root, name, WorkerRequest.RESUME)


def _ask(root: Path | None, name: str, request: WorkerRequest) -> None:
    """Raises WorkerNotFound."""
    from reeltune.definitions import resolve_root
    from reeltune.jobs.roster import Roster, unknown_worker

    folder = resolve_root(root)
    if not _has_queue(folder) or not _is_run(folder):
        raise unknown_worker(name, [])
    Roster.of(folder).ask(name, request)
    print_line(f"{name} was asked to {request}.")


def _has_queue(root: Path) -> bool:
    from reeltune.jobs.store import FILE_NAME

    return (root / FILE_NAME).exists()


def _is_run(root: Path) -> bool:
    """Whether a program runs the jobs of a root; the table of one that was killed is out of date."""
    from filelock import FileLock, Timeout

    from reeltune.jobs.runner import LOCK_NAME

    if not (root / LOCK_NAME).exists():
        return False
    try:
        with FileLock(root / LOCK_NAME, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # it belongs to another user, who may run it
        return True


def _cells(row: WorkerRow) -> tuple[str, ...]:
    from reeltune._text import duration, size

    used = size(row.used_bytes) if row.used_bytes else ""
    memory = f"{used} of {size(row.memory_bytes)}" if used and row.memory_bytes else used
    since = duration(max(0.0, time.time() - row.since))
    job = str(row.job) if row.job is not None else ""
    return (row.name, row.device, row.node, row.state, since, job, row.holds, memory)
