"""The exceptions that reeltune raises.

    ReeltuneError
    ├── FileError                a file or folder that can't be read or written
    ├── InvalidJSON              text that is not JSON, or too large or too deep (carries the location)
    ├── DefinitionError          a definition file or its content
    │   ├── DefinitionSyntaxError    not JSON, not UTF-8, not an object
    │   ├── DefinitionInvalid        a value of the wrong kind (carries all problems)
    │   ├── DefinitionNotFound       no definition has this id
    │   └── DefinitionReference      a reference to a missing definition, or a circular one
    │       └── UnknownArchitecture      an architecture that reeltune doesn't support (carries its name)
    ├── SettingsError            a setting of the wrong kind or out of range
    ├── PreferencesError         an invalid preference in reeltune.json or on the command line
    ├── CheckpointError          a weight file
    │   ├── HeaderError              the header of a weight file is broken or doesn't fit the file
    │   ├── UnsupportedFormat        a format that can't be loaded, by name
    │   ├── AmbiguousArchitecture    a header that fits several architectures (carries them)
    │   ├── TensorMismatch           tensors whose names or shapes differ from the model's
    │   └── LoraMismatch             a LoRA that matches nothing in the model, or was made for another size
    ├── ChoiceError              no version of a slot can be used (carries every rejection)
    ├── NotRunnable              the architecture, or a feature it is asked for, isn't supported
    ├── FetchError               a download
    │   ├── Offline                  a download is needed while reeltune is offline
    │   ├── Unreachable              a temporary failure of the network or server (carries when to retry)
    │   ├── NotEnoughDisk            the files don't fit on the disk
    │   └── BadDownload              the downloaded data is not what was expected
    ├── PublishError             something could not be published
    │   ├── PublishRefused           the Hub refused the token, or the token may not write to the repository
    │   ├── RepositoryChanged        somebody changed the repository meanwhile
    │   └── UploadDamaged            the Hub has other bytes than were sent
    ├── LockError                a lock file that can't be used
    │   └── LockMismatch             a file is not the one in the lock file
    ├── MediaError               an image or a video that can't be read or written
    ├── DeviceError              a device that can't be used
    │   ├── DeviceMissing            the requested device isn't on this machine
    │   └── WorkersError             the workers that were asked for can't be understood, or aren't possible
    ├── GenerationError          while making a video
    │   ├── Cancelled                the caller asked to stop
    │   ├── NotEnoughMemory          the weights don't fit on the device (carries both sizes)
    │   ├── NotFinite                the result contains NaN or infinity (carries the weight files)
    │   └── DecodeFailed             decoding failed; the latents are stored (carries their file)
    ├── QueueError               the queue can't be used, or a job is in the wrong state
    │   ├── QueuePaused              the user has paused the queue
    │   ├── JobNotFound              no job has this number
    │   ├── WorkerNotFound           no worker has this name
    │   ├── JobStateError            a job is in a state that doesn't allow what was asked
    │   ├── QueueFull                as many jobs wait as may wait
    │   └── WorkerDied               the worker process ended unexpectedly
    ├── ClusterError             a Ray cluster that can't be used, or isn't protected
    └── ServeError               the web server can't start

`message` describes what failed and why, `hint` the next step; `str(error)` is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reeltune.planning.choose import Rejection

_MAX_LOCATION = 120  # characters; a file can contain keys of any length


class ReeltuneError(Exception):
    """Base class of all errors; `message` describes what failed and why, `hint` the next step (may be empty)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(frozen=True)
class Problem:
    """An error or a warning at one location in a file."""

    file: str
    where: str  # key path such as "model.URLs[1]", or "line 3, column 7"
    message: str
    fix: str = ""
    severity: str = "error"  # "error" | "warning"

    def __str__(self) -> str:
        where = self.where
        if len(where) > _MAX_LOCATION:
            where = where[: _MAX_LOCATION - 1] + "…"
        location = f"{self.file}: {where}" if where else self.file
        return f"{location}: {self.message} {self.fix}".rstrip()


class FileError(ReeltuneError):
    """A file or folder can't be read or written."""


class InvalidJSON(ReeltuneError):
    """A text is not JSON, or is too large or nested too deeply; `where` is the location, as "line 3, column 7"."""

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where

    def __str__(self) -> str:
        location = f" ({self.where})" if self.where else ""
        return f"{self.message.rstrip('.')}{location}. {self.hint}".strip()


class DefinitionError(ReeltuneError):
    """A definition file can't be used."""


class DefinitionSyntaxError(DefinitionError):
    """The file is not UTF-8 JSON with an object at the top."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class DefinitionInvalid(DefinitionError):
    """The file is JSON, but contains invalid values; `problems` lists them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class DefinitionNotFound(DefinitionError):
    """No definition has this id."""


class DefinitionReference(DefinitionError):
    """A definition refers to one that is missing, is broken, or refers back to it; `problem` has the location."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class UnknownArchitecture(DefinitionReference):
    """A definition derives from an architecture that reeltune doesn't support.

    `architecture` is its name; `meant` is the supported one it is probably a misspelling of, or an empty string.
    """

    def __init__(self, problem: Problem, *, architecture: str, meant: str = "") -> None:
        super().__init__(problem)
        self.architecture = architecture
        self.meant = meant


class SettingsError(ReeltuneError):
    """A setting has a value of the wrong kind, or one that is out of range; `key` is its name, if it is about one."""

    def __init__(self, message: str, *, hint: str = "", key: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class PreferencesError(ReeltuneError):
    """A preference in `reeltune.json` or on the command line has an invalid value."""


class CheckpointError(ReeltuneError):
    """A weight file can't be used."""


class HeaderError(CheckpointError):
    """The header of a weight file is broken, or does not fit the file."""


class UnsupportedFormat(CheckpointError):
    """The file is in a format that can't be loaded; the message names it."""


class AmbiguousArchitecture(CheckpointError):
    """The header fits several architectures; `candidates` lists their ids, the most likely first."""

    def __init__(self, message: str, *, hint: str = "", candidates: Sequence[str]) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class TensorMismatch(CheckpointError):
    """The file's tensors are not the model's; `missing`, `unexpected` and `misshapen` hold their names."""

    def __init__(
        self, message: str, *, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)


class LoraMismatch(CheckpointError):
    """A LoRA matches nothing in the model, or was made for a model of another size."""


class ChoiceError(ReeltuneError):
    """No version of a slot can be used; `rejected` holds each version and the reason."""

    def __init__(self, message: str, *, rejected: Sequence[Rejection] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rejected = tuple(rejected)


class NotRunnable(ReeltuneError):
    """The architecture, or a feature that the definition or the settings ask for, isn't supported."""


class FetchError(ReeltuneError):
    """Something could not be downloaded."""


class Offline(FetchError):
    """A download is needed while `REELTUNE_OFFLINE` or `HF_HUB_OFFLINE` is set."""


class Unreachable(FetchError):
    """A temporary failure of the network or the server.

    `retry_after` is the time in seconds after which the server asks to retry, or None.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NotEnoughDisk(FetchError):
    """The files to download don't fit on the disk."""


class BadDownload(FetchError):
    """The downloaded data is not the expected file: a web page, a truncated file, a wrong sha256."""


class PublishError(ReeltuneError):
    """Something could not be published."""


class PublishRefused(PublishError):
    """The Hub refused the token, or the token may not write to the repository."""


class RepositoryChanged(PublishError):
    """Somebody changed the repository between the plan and the commit."""


class UploadDamaged(PublishError):
    """The Hub has other bytes than were sent."""


class LockError(ReeltuneError):
    """A lock file can't be read or written, or doesn't list everything that its definition uses."""


class LockMismatch(LockError):
    """A file is not the one in the lock file: its size or its sha256 differs."""


class MediaError(ReeltuneError):
    """An image or a video can't be read or written."""


class DeviceError(ReeltuneError):
    """The requested device doesn't exist, or doesn't support the data type."""


class DeviceMissing(DeviceError):
    """The requested device isn't on this machine."""


class WorkersError(DeviceError):
    """The workers that were asked for can't be understood, or aren't possible."""


class GenerationError(ReeltuneError):
    """Making the video failed."""


class Cancelled(GenerationError):
    """The caller asked to stop."""


class NotEnoughMemory(GenerationError):
    """The weights don't fit on the device; `needed` and `available` in bytes."""

    def __init__(self, message: str, *, hint: str = "", needed: int, available: int) -> None:
        super().__init__(message, hint=hint)
        self.needed = needed
        self.available = available


class NotFinite(GenerationError):
    """The result contains NaN or infinity; `files` are the weight files it was computed from."""

    def __init__(self, message: str, *, files: Sequence[Path], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.files = tuple(files)


class DecodeFailed(GenerationError):
    """Decoding failed after denoising; `latents` is the file with the denoised latents, None where there is none."""

    def __init__(self, message: str, *, latents: Path | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.latents = latents


class QueueError(ReeltuneError):
    """The queue can't be read or written, or a job's state doesn't allow the operation."""


class QueuePaused(QueueError):
    """The user has paused the queue."""


class JobNotFound(QueueError):
    """No job has this number, perhaps because it was removed."""


class WorkerNotFound(QueueError):
    """No worker has this name."""


class JobStateError(QueueError):
    """A job is in a state that doesn't allow what was asked."""


class QueueFull(QueueError):
    """As many jobs wait as may wait."""


class WorkerDied(QueueError):
    """The worker process ended unexpectedly; `signal` is the name of the signal that ended it, if any."""

    def __init__(self, message: str, *, hint: str = "", signal: str = "") -> None:
        super().__init__(message, hint=hint)
        self.signal = signal


class ClusterError(ReeltuneError):
    """A Ray cluster can't be used: Ray isn't installed, the cluster can't be reached, or isn't protected by a token."""


class ServeError(ReeltuneError):
    """The web server can't start: the port is in use, or other machines could connect without authentication."""
