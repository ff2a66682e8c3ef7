"""`run`: make the videos of settings files and saved queues, without the page."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted, size
from reeltune.cli.generate import check_writable
from reeltune.cli.options import Ray, Root, Workers
from reeltune.cli.output import interruptible, print_line, print_notice
from reeltune.files import expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reeltune.events import CancelToken
    from reeltune.jobs import Queue
    from reeltune.jobs.messages import WorkerEvent
    from reeltune.service.batches import BatchEntry, EntrySummary

_FOLDER_HINT = "Choose another folder with --output-dir, or with `outputs` in reeltune.json."


def run(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="A settings file, a list of settings, an exported queue, WanGP's queue (.zip or queue.json), a "
            "generated video, or a folder with .json and .zip files.",
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything and show what would be made. Exit code 1 if an entry is broken."
        ),
    ] = False,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            show_default=False,
            metavar="DIR",
            help="Folder for the videos of this run (default: the preference outputs).",
        ),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    save_quantized: Annotated[
        bool, typer.Option("--save-quantized", help="Also save models that are quantized while loading.")
    ] = False,
    root: Root = None,
) -> None:
    """Make all videos of settings files and saved queues, one after the other, without the page.

    A broken entry is reported, and the others are made.

    After Ctrl-C or a crash, the same command continues. A second Ctrl-C stops at once.

    Exit code: 0 if all videos were made, 1 if some were not, 130 if it was stopped.
    """
    from reeltune.definitions import resolve_root
    from reeltune.errors import Cancelled

    folder = resolve_root(root)
    logging.getLogger("reeltune").addHandler(logging.NullHandler())  # this command shows the jobs itself
    with interruptible() as cancel, _terminated_as_interrupted(cancel):
        try:
            if dry_run:
                code = _show_plan(folder, paths, cancel)
            else:
                code = _run(folder, paths, output_dir, workers, ray, save_quantized, cancel)
        except KeyboardInterrupt:  # the second Ctrl-C
            raise Cancelled("Stopped at once.", hint="Run the same command again to continue.") from None
    if code:
        raise typer.Exit(code)


@contextmanager
def _terminated_as_interrupted(cancel: CancelToken) -> Iterator[None]:
    """SIGTERM, which systems send before they end a program, stops at the next step like the first Ctrl-C."""
    previous = signal.signal(signal.SIGTERM, lambda *_: cancel.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


# --- dry run ----------------------------------------------------------------------------------------------------


def _show_plan(root: Path, paths: Sequence[Path], cancel: CancelToken) -> int:
    """Print what would be made; returns the exit code. Nothing is stored in the root."""
    from reeltune.cli.run_progress import entries
    from reeltune.jobs import Runner, State
    from reeltune.service.batch_jobs import BatchMark, earlier_jobs
    from reeltune.service.batches import plan_batch
    from reeltune.service.workspace import Workspace

    with tempfile.TemporaryDirectory(prefix="reeltune-", ignore_cleanup_errors=True) as name:
        temporary = Path(name)
        workspace = Workspace(root, Runner(temporary), uploads=temporary / "uploads")
        plan = plan_batch(workspace, paths, cancel)
        earlier = earlier_jobs(_copied_queue(root, temporary / "queue"))
    for notice in plan.notices:
        print_notice(notice)
    for entry in plan.entries:
        job = earlier.get(BatchMark.of(entry))
        _print_entry(entry)
        if job is not None:
            what = "was made before" if job.state is State.DONE else "is continued"
            print_line(f"    Job {job.id} of the interrupted batch {what}.")
    print_line(f"{entries(len(plan.usable))} can be made, {len(plan.broken)} can't.")
    return 1 if plan.broken else 0


def _copied_queue(root: Path, folder: Path) -> Queue:
    """A copy of the root's queue, as opening the queue itself could update its file."""
    from reeltune.jobs import Queue
    from reeltune.jobs.store import copy_queue

    copy_queue(root, folder)
    return Queue(folder)


def _print_entry(entry: BatchEntry) -> None:
    if entry.error is not None:
        print_line(f"{entry.name}: can't be made")
        print_line(f"    {entry.error}")
        return
    from reeltune.cli.run_progress import heading

    print_line(heading(entry))
    if entry.summary is not None:
        print_line(f"    {summary_line(entry.summary)}")
    for notice in entry.notices:
        print_line(f"    · {notice}")


def summary_line(summary: EntrySummary) -> str:
    """What an entry makes, on one line."""
    seed = "random seed" if summary.seed is None else f"seed {summary.seed}"
    length = f"{counted(summary.frames, 'frame')} at {summary.fps} fps"
    parts = [f"{summary.width}x{summary.height}", length, counted(summary.steps, "step"), seed]
    if summary.missing_files:
        amount = "size not known yet" if summary.missing_bytes is None else size(summary.missing_bytes)
        parts.append(f"to download: {counted(summary.missing_files, 'file')} ({amount})")
    return ", ".join(parts)


# --- run --------------------------------------------------------------------------------------------------------


def _run(
    root: Path,
    paths: Sequence[Path],
    output_dir: Path | None,
    workers: str | None,
    ray: str | None,
    save_quantized: bool,
    cancel: CancelToken,
) -> int:
    """Make the videos; returns the exit code. Raises Cancelled, DeviceError, ClusterError."""
    from reeltune.cli.run_progress import BatchRun
    from reeltune.jobs import Runner
    from reeltune.jobs.chosen import chosen_workers
    from reeltune.preferences import load_preferences
    from reeltune.service.batch_jobs import add_jobs, finish_batch, other_jobs
    from reeltune.service.batches import plan_batch
    from reeltune.service.workspace import Workspace

    preferences, notices = load_preferences(root)
    videos = root / expand(preferences.outputs) if output_dir is None else expand(output_dir).absolute()
    check_writable(videos / "video.mp4", _FOLDER_HINT)
    outputs = None if output_dir is None else videos
    events: queue.SimpleQueue[tuple[int, WorkerEvent]] = queue.SimpleQueue()
    handles, cluster = chosen_workers(root, workers, ray, save_quantized=save_quantized, outputs=outputs)
    runner = Runner(
        root,
        workers=handles,
        cluster=cluster,
        only=frozenset(),
        listener=lambda id, event: events.put((id, event)),
        outputs=outputs,
    )
    with runner:  # holds the lock of the root from here on: no other program takes the jobs that are added
        plan = plan_batch(Workspace(root, runner), paths, cancel)
        jobs = add_jobs(runner.queue, plan)
        for notice in (runner.queue.notice, *notices, *plan.notices, *jobs.notices):
            if notice:
                print_notice(notice)
        waiting = other_jobs(runner.queue, jobs)
        if waiting:
            print_notice(f"The queue has {counted(waiting, 'other job')}, which this command doesn't run.")
        batch = BatchRun(runner, plan, jobs, events)
        batch.run(cancel)
        finish_batch(runner.queue, plan)
    if output_dir is not None:
        with contextlib.suppress(OSError):  # latents are only kept there where a video couldn't be written
            (videos / "latents").rmdir()
    return batch.finish()
