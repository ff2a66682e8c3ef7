"""The Ray actor of one worker: it runs the same worker process as a single machine, on its node.

The engine is not in the actor's process. A process of its own can be cancelled at a step by the same messages, and be
killed in the middle of one, which returns the memory of the card whatever its libraries do; if it crashes, the actor
lives and says why. Where the actor ends, by `ray.kill` or with its node, the process loses its input and ends too.

Ray calls the methods; this module doesn't import it. All arguments and results are plain values, so that the two sides
may run different versions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from reeltune._version import __version__
from reeltune.definitions.catalog import ROOT_VARIABLE
from reeltune.errors import FileError, ReeltuneError, WorkerDied
from reeltune.events import FilesUsed, LatentsStored, Notice
from reeltune.families.values import Settings
from reeltune.files import expand, read_bytes
from reeltune.jobs.codec import pack_event, unpack_task
from reeltune.jobs.crash import explained
from reeltune.jobs.job import Attempt
from reeltune.jobs.local import LocalProcess, worker_command
from reeltune.jobs.messages import Failed, RunTask, Saved, WorkerEvent
from reeltune.jobs.ray_folder import NodeFolder
from reeltune.library.inventory import PACKAGE_FILES
from reeltune.machine import free_disk, probe

DEFAULT_FOLDER = "~/reeltune"  # of a node where nothing else is said
MOST_BYTES = 1_500_000_000  # of one file that travels; Ray copies an object as a whole
Sent = tuple[bytes, bytes]  # a line of `reeltune.jobs.codec`, and the content of the file that it names


class RayActor:
    """`folder`: the root of the node with its weights; by default `$REELTUNE_ROOT` of the node, else `~/reeltune`.

    `device`: what the worker computes on: "cuda" is the card that Ray has given to the actor. `threads`: CPU threads.
    """

    def __init__(self, name: str, folder: str, device: str, threads: int) -> None:
        weights = expand(folder or os.environ.get(ROOT_VARIABLE) or DEFAULT_FOLDER).absolute()
        os.environ["OMP_NUM_THREADS"] = str(max(1, threads))  # Ray has set it to the CPUs that the actor reserves
        self._folder = NodeFolder(weights, device)
        self._local = LocalProcess(name, worker_command(self._folder.path))

    def places(self) -> dict[str, str]:
        """The folders whose files have other paths on the machine of the runner."""
        return {
            "root": str(self._folder.path),
            "weights": str(self._folder.weights),
            "package": str(PACKAGE_FILES),
        }

    def missing(self, files: list[tuple[str, str]]) -> list[str]:
        """Which of these files (path and sha256) have to be sent with the next task."""
        return self._folder.missing(files)

    def run(
        self, line: bytes, texts: Mapping[str, bytes], preferences: Settings, contents: Mapping[str, bytes],
        used: list[str],
    ) -> Iterator[Sent]:  # fmt: skip
        """Run the task of a line: the lines of its events. An empty line is the end of the worker, with the reason.

        `texts`: definitions and saved settings by path. `contents`: files by path; `used`: the files that it uses.
        """
        task = unpack_task(line).task
        if not isinstance(task, RunTask):
            yield b"", _death(WorkerDied("The node can't read the task.", hint="Install the same version everywhere."))
            return
        using: FilesUsed | None = None
        try:
            self._folder.receive(contents, used)
            self._folder.update(texts, preferences)
            if task.latents:
                task = replace(task, latents=str(self._folder.place(task.latents)))
            for event in self._local.run(task):
                if isinstance(event, FilesUsed):
                    using = event
                yield self._sent(task.attempt, event)
        except WorkerDied as death:
            yield b"", _death(explained(death, using))
        except ReeltuneError as error:
            yield pack_event(task.attempt, Failed(error.message, error.hint)), b""

    def _sent(self, attempt: Attempt, event: WorkerEvent) -> Sent:
        """An event with its file. A video is deleted here. Raises FileError for one that is too large."""
        match event:
            case Saved(path=path):
                return pack_event(attempt, event), _taken(Path(path))
            case LatentsStored(path=path):
                try:
                    return pack_event(attempt, event), read_bytes(Path(path), MOST_BYTES)
                except FileError as error:
                    text = f"The latents stay on the node, and are lost with it: {error.message}"
                    return pack_event(attempt, Notice(text)), b""
            case Notice(message=text):
                return pack_event(attempt, Notice(self._folder.told(text))), b""
            case Failed(error=text, hint=hint, shared=shared):
                return pack_event(attempt, Failed(self._folder.told(text), self._folder.told(hint), shared)), b""
        return pack_event(attempt, event), b""

    # --- called while `run` runs ------------------------------------------------------------------------------------

    def cancel(self, job: int, number: int) -> None:
        """Stop an attempt at its next step, also one that begins after this."""
        self._local.cancel(Attempt(job, number))

    def kill(self) -> None:
        """End the process at once; the next task starts another one."""
        self._local.kill()

    def close(self) -> None:
        """End the process for good, and delete the folder of the actor."""
        self._local.close()
        self._folder.close()


def describe_node(folder: str) -> dict[str, str | int | list[int]]:
    """What the runner shows of a node: its cards' memory and its own, in bytes, and the version that it runs."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides the cards from whoever asked for none
    machine = probe()
    weights = expand(folder or os.environ.get(ROOT_VARIABLE) or DEFAULT_FOLDER).absolute()
    return {
        "version": __version__,
        "ram": machine.ram,
        "gpus": [gpu.memory for gpu in machine.gpus],
        "folder": str(weights),
        "free_disk": free_disk(weights),
    }


def _taken(path: Path) -> bytes:
    content = read_bytes(path, MOST_BYTES)
    path.unlink(missing_ok=True)
    return content


def _death(death: WorkerDied) -> bytes:
    return json.dumps({"message": death.message, "hint": death.hint}).encode()
