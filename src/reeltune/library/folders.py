"""One bounded walk through folders: files by name, whatever the folders hold."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from reeltune.files import reason
from reeltune.library.places import PARTIAL

MOST_FILES = 200_000  # of one folder given, such as ckpts with all that is below it
MOST_SECONDS = 10.0


@dataclass(frozen=True)
class Walk:
    """Regular files by name, in the order of the folders given; `notices`: folders of which not all was seen."""

    by_name: dict[str, list[Path]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def walk(tops: Sequence[Path], *, most: int = MOST_FILES, seconds: float = MOST_SECONDS) -> Walk:
    """Files below `tops`, each real folder once. What is nearer to a top comes first, so that a limit cuts off what is
    deep. Named pipes, devices and unfinished downloads are left out.
    """
    found = Walk()
    seen: set[str] = set()
    for top in tops:
        _walk_one(top, found, seen, most, time.monotonic() + seconds)
    return found


def _walk_one(top: Path, found: Walk, seen: set[str], most: int, end: float) -> None:
    waiting = deque([str(top)])
    count = 0
    while waiting:
        folder = waiting.popleft()
        try:
            if (real := os.path.realpath(folder)) in seen:  # noqa: PTH  # links may lead in circles
                continue
            seen.add(real)
            with os.scandir(folder) as entries:
                rows = sorted(islice(entries, most + 1), key=lambda entry: entry.name)
        except (OSError, ValueError) as error:
            if folder == str(top) and not (isinstance(error, FileNotFoundError) and not top.is_symlink()):
                found.notices.append(f"{top} can't be read, so none of its files is used: {reason(error)}.")
            continue
        count += len(rows)
        for entry in rows:
            _sort_in(entry, found, waiting)
        if waiting and (count > most or time.monotonic() > end):
            found.notices.append(
                f"{top} holds too much to look through: {count:,} files and folders were, and what is deeper was not. "
                "Name the folder that holds the weights."
            )
            return


def _sort_in(entry: os.DirEntry[str], found: Walk, waiting: deque[str]) -> None:
    if entry.name.endswith(PARTIAL):
        return
    try:
        if entry.is_dir():
            waiting.append(entry.path)
        elif entry.is_file():
            found.by_name.setdefault(entry.name, []).append(Path(entry.path))
    except OSError:  # a link in a circle
        return
