"""Importing and calling large libraries quietly and without needless garbage collection."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log messages below ERROR: those that libraries emit about optional parts help no user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector, for imports of large libraries.

    An import creates hundreds of thousands of permanent objects; collections during it take a quarter of the time and
    free nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Import a large library, quietly and with the garbage collector paused."""
    with uncollected(), quiet():
        yield


def freeze_imported() -> None:
    """Exclude all existing objects from garbage collection.

    For reeltune's own processes, after their libraries are imported and again before they exit: otherwise each
    collection, and the interpreter's shutdown, traverses the objects of every library. Not for use inside a program
    that imports reeltune, because it would freeze that program's objects too.
    """
    gc.freeze()
