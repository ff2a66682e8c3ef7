"""Thousands of damaged files of strangers: each gives a result or an error of ours, soon, and touches nothing else.

A few of each kind run with the suite. `REELTUNE_FUZZ=1700 pytest tests/test_fuzz.py -s` runs so many of each kind, and
`REELTUNE_FUZZ_SEED=9` runs others; what they came to is printed.
"""

import contextlib
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from reeltune.errors import ReeltuneError
from strangers import KINDS

TRIES = int(os.environ.get("REELTUNE_FUZZ", "50"))  # of each kind
SEED = os.environ.get("REELTUNE_FUZZ_SEED", "1")
LONGEST = 2.0  # seconds of the processor, of one input
LONGEST_WAIT = 60.0  # seconds in all: tests that run beside this one take their share
_CHANGING = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.symlink", "os.link", "os.truncate", "os.chmod")
_REACHING_OUT = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Watch:
    """Notes what the process changes outside a folder, and whatever it starts or connects to."""

    def __init__(self) -> None:
        self._inside: Path | None = None
        self.noted: list[str] = []
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def over(self, folder: Path):
        """Watch while the block runs."""
        self._inside = folder
        try:
            yield
        finally:
            self._inside = None

    def _hear(self, event, arguments):
        if self._inside is None:
            return
        if event in _REACHING_OUT:
            self.noted.append(f"{event} {arguments}")
        elif event in _CHANGING or (event == "open" and arguments[2] & _WRITING):
            paths = [part for part in arguments[:2] if isinstance(part, str | bytes | os.PathLike)]
            if event == "open":  # its second argument is the mode; a number instead of a path is an open file
                paths = [arguments[0]] if not isinstance(arguments[0], int) else []
            if not all(Path(os.fsdecode(path)).absolute().is_relative_to(self._inside) for path in paths):
                self.noted.append(f"{event} {arguments}")


@pytest.fixture(scope="module")
def watch():
    return Watch()


@dataclass
class Results:
    """What the inputs of a kind came to."""

    ends: Counter = field(default_factory=Counter)
    slowest: float = 0.0
    longest: float = 0.0

    def add(self, end, seconds, waited):
        self.ends[end] += 1
        self.slowest, self.longest = max(self.slowest, seconds), max(self.longest, waited)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_of_strangers(root, tmp_path, monkeypatch, watch, kind):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    stranger, results = KINDS[kind](root), Results()
    for number in range(TRIES):
        content = stranger.write(Random(f"{SEED} {kind} {number}"))
        begun, busy = time.monotonic(), time.process_time()
        end = "a result"
        try:
            with watch.over(root):
                stranger.use()
        except ReeltuneError as error:
            end = type(error).__name__
            str(error).encode("utf-8")
        except BaseException as error:
            (tmp_path / "input").write_bytes(content)
            error.add_note(f"Input {number} of seed {SEED}, kept as {tmp_path / 'input'}: {content[:500]!r}")
            raise
        seconds, waited = time.process_time() - busy, time.monotonic() - begun
        results.add(end, seconds, waited)
        assert seconds < LONGEST, f"Input {number} of seed {SEED} takes {seconds:.1f} s: {content[:500]!r}"
        assert waited < LONGEST_WAIT, f"Input {number} of seed {SEED} waits {waited:.1f} s: {content[:500]!r}"
        assert watch.noted == [], f"Input {number} of seed {SEED}: {content[:500]!r}"
    ends = ", ".join(f"{end} {count}" for end, count in results.ends.most_common())
    print(f"\n{TRIES} {kind}: {ends}; slowest {results.slowest:.3f} s of the processor, {results.longest:.3f} s in all")
    assert results.ends["a result"] > TRIES // 20
    assert TRIES < 50 or results.ends["a result"] < TRIES


def test_what_is_changed_elsewhere_is_noted(root, tmp_path, watch):
    with watch.over(root):
        (root / "inside").write_text("x", encoding="utf-8")
        (tmp_path / "outside").write_text("x", encoding="utf-8")
        (tmp_path / "outside").rename(root / "moved")
    noted = [line.split()[0] for line in watch.noted]
    watch.noted.clear()
    assert noted == ["open", "os.rename"]
