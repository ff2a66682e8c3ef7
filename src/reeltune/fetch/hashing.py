"""The sha256 of a partial file, computed while the file is downloaded."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from reeltune.library.journal import BLOCK, Journal

_WAIT_SECONDS = 0.005
_READ_BYTES = 16 * BLOCK


class Hasher(threading.Thread):
    """Hashes the file in order, close behind the pieces, while its bytes are still in the page cache."""

    def __init__(self, partial: Path, journal: Journal, stop: threading.Event) -> None:
        super().__init__(daemon=True, name="sha256")
        self._partial = partial
        self._journal = journal
        self._stop_requested = stop
        self._sha256 = hashlib.sha256()
        self._error: OSError | None = None

    def run(self) -> None:
        """Hash until the end of the file, or until `stop` is set."""
        position = 0
        try:
            with self._partial.open("rb", buffering=0) as file:
                while position < self._journal.state.size and not self._stop_requested.is_set():
                    end = self._complete_until(position)
                    if end == position:
                        self._stop_requested.wait(_WAIT_SECONDS)
                        continue
                    data = file.read(end - position)
                    self._sha256.update(data)
                    position += len(data)
        except OSError as error:
            self._error = error

    def _complete_until(self, position: int) -> int:
        """The end of the complete blocks that follow `position`, at most `_READ_BYTES` further."""
        journal = self._journal
        end = position
        while end < journal.state.size and end - position < _READ_BYTES and journal.has_block(end // BLOCK):
            end = min(end + BLOCK, journal.state.size)
        return end

    def digest(self) -> str:
        """The sha256 of the file. Waits until the whole file is hashed. Raises OSError."""
        self.join()
        if self._error:
            raise self._error
        return self._sha256.hexdigest()
