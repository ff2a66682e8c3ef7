"""Every error reeltune raises on purpose.

    ReeltuneError
    ├── FileError                a file or folder that can't be read or written
    ├── InvalidJSON              text that is not JSON, or too large or too deep (carries the place)
    ├── DefinitionError          a definition file or what it says
    │   ├── DefinitionSyntaxError    not JSON, not UTF-8, not an object
    │   ├── DefinitionInvalid        a value of the wrong kind (carries all problems)
    │   ├── DefinitionNotFound       no definition of that id
    │   └── DefinitionReference      a reference to a missing definition, or in a circle
    │       └── UnknownArchitecture      an architecture that this program doesn't have (carries its name)
    ├── SettingsError            a setting of the wrong kind or out of range
    ├── PreferencesError         reeltune.json or a flag
    ├── CheckpointError          a weight file
    │   ├── HeaderError              the safetensors header is broken or doesn't fit the file
    │   ├── UnsupportedFormat        a format that can't be loaded, by name
    │   ├── AmbiguousArchitecture    a header that fits several architectures (carries them)
    │   ├── TensorMismatch           names or shapes that the model doesn't have, or lacks
    │   └── LoraMismatch             a LoRA that changes nothing of the model, or was made for another size
    ├── ChoiceError              no version of a slot can be used (carries every rejection)
    ├── NotRunnable              the architecture, or something asked of it, isn't supported
    ├── FetchError               a download
    │   ├── Offline                  needed from the network while offline
    │   ├── Unreachable              the network or the server fails for now (carries when to ask again)
    │   ├── NotEnoughDisk            the plan doesn't fit
    │   └── BadDownload              what came is not what was announced
    ├── MediaError               an image or a video that can't be read or written
    ├── DeviceError              a device that can't compute what is asked
    │   └── DeviceMissing            the device asked for isn't on this machine
    ├── GenerationError          while making a video
    │   ├── Cancelled                the caller asked to stop
    │   ├── NotEnoughMemory          the weights are more than the device holds (carries both numbers)
    │   ├── NotFinite                the weights make NaN or infinity (carries the files)
    │   └── DecodeFailed             decoding failed; the latents are kept (carries them)
    ├── QueueError               the queue of jobs, or something asked of a job
    │   └── WorkerDied               the process that makes the videos ended on its own
    └── ServeError               the page can't be served as asked

The message says what and why; `hint` says the next step. `str(error)` is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST_PLACE = 120  # characters: keys in strangers' files have any length


class ReeltuneError(Exception):
    """Base of all; `message` says what and why, `hint` the next step (may be empty)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(frozen=True)
class Problem:
    """One thing wrong (or worth knowing) at one place in a file."""

    file: str
    where: str  # key path such as "model.URLs[1]", or "line 3, column 7"
    message: str
    fix: str = ""
    severity: str = "error"  # "error" | "warning"

    def __str__(self) -> str:
        where = self.where if len(self.where) <= _LONGEST_PLACE else self.where[: _LONGEST_PLACE - 1] + "…"
        place = f"{self.file}: {where}" if where else self.file
        return f"{place}: {self.message}" + (f" {self.fix}" if self.fix else "")


class FileError(ReeltuneError):
    """A file or folder can't be read or written."""


class InvalidJSON(ReeltuneError):
    """A text is not JSON, or is too large or nested too deeply; `where` is the place, such as "line 3, column 7"."""

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.message.rstrip('.')}{place}. {self.hint}".strip()


class DefinitionError(ReeltuneError):
    """A definition file, or what it says."""


class DefinitionSyntaxError(DefinitionError):
    """The file is not UTF-8 JSON with an object at the top."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class DefinitionInvalid(DefinitionError):
    """The file is JSON, but some values can't be right; `problems` lists them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class DefinitionNotFound(DefinitionError):
    """No definition has this id."""


class DefinitionReference(DefinitionError):
    """A definition refers to another that is missing, broken, or refers back to it; `problem` has the place."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class UnknownArchitecture(DefinitionReference):
    """A definition derives from an architecture that this program doesn't have; `architecture` is its name, `meant` the
    one that it is a misspelling of, if it is one.
    """

    def __init__(self, problem: Problem, *, architecture: str, meant: str = "") -> None:
        super().__init__(problem)
        self.architecture, self.meant = architecture, meant


class SettingsError(ReeltuneError):
    """A setting has the wrong kind of value, or one out of range."""


class PreferencesError(ReeltuneError):
    """A preference in `reeltune.json`, or given as a flag, has an impossible value."""


class CheckpointError(ReeltuneError):
    """A weight file can't be used."""


class HeaderError(CheckpointError):
    """The safetensors header is broken, or does not fit the file."""


class UnsupportedFormat(CheckpointError):
    """The file is in a format that can't be loaded; the message names it."""


class AmbiguousArchitecture(CheckpointError):
    """The header fits several architectures; `candidates` names them, the likeliest first."""

    def __init__(self, message: str, *, hint: str = "", candidates: Sequence[str]) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class TensorMismatch(CheckpointError):
    """The file's tensors are not those of the model; carries the differing names."""

    def __init__(
        self, message: str, *, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)


class LoraMismatch(CheckpointError):
    """A LoRA changes nothing of the model, or was made for one of another size."""


class ChoiceError(ReeltuneError):
    """No version of a slot can be used; `rejected` holds the reason for each."""

    def __init__(self, message: str, *, rejected: Sequence[Any] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rejected = tuple(rejected)


class NotRunnable(ReeltuneError):
    """The architecture, or something the definition or settings ask of it, isn't supported."""


class FetchError(ReeltuneError):
    """Something could not be downloaded."""


class Offline(FetchError):
    """Needed from the network while `REELTUNE_OFFLINE` (or `HF_HUB_OFFLINE`) is set."""


class Unreachable(FetchError):
    """The network or the server fails for now; `retry_after` is the pause in seconds it asks for, or None."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NotEnoughDisk(FetchError):
    """The files to fetch don't fit on the disk."""


class BadDownload(FetchError):
    """What arrived is not what was announced: a page, a cut file, a wrong sum."""


class MediaError(ReeltuneError):
    """An image or a video can't be read or written."""


class DeviceError(ReeltuneError):
    """The device asked for isn't there, or can't compute the data type."""


class DeviceMissing(DeviceError):
    """The device asked for isn't on this machine."""


class GenerationError(ReeltuneError):
    """Making the video failed."""


class Cancelled(GenerationError):
    """The caller asked to stop."""


class NotEnoughMemory(GenerationError):
    """The weights don't fit; `needed` and `available` in bytes."""

    def __init__(self, message: str, *, hint: str = "", needed: int, available: int) -> None:
        super().__init__(message, hint=hint)
        self.needed, self.available = needed, available


class NotFinite(GenerationError):
    """What was computed holds NaN or infinity; `files` are those whose weights made it."""

    def __init__(self, message: str, *, files: Sequence[Any], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.files = tuple(files)


class DecodeFailed(GenerationError):
    """Decoding failed after denoising; `latents` is the file that keeps the work."""

    def __init__(self, message: str, *, latents: Any, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.latents = latents


class QueueError(ReeltuneError):
    """The queue can't be read or written, or a job isn't in a state for what is asked of it."""


class WorkerDied(QueueError):
    """The process that makes the videos ended on its own; the message says how, `signal` by which signal, if any."""

    def __init__(self, message: str, *, hint: str = "", signal: str = "") -> None:
        super().__init__(message, hint=hint)
        self.signal = signal


class ServeError(ReeltuneError):
    """The page can't be served as asked: a port that is taken, or a host open to others without authentication."""
