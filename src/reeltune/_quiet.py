"""Importing and calling large libraries without their messages and without needless work."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log messages below ERROR: what libraries report about optional parts helps no user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def importing() -> Iterator[None]:
    """Import a large library, quietly and with the garbage collector paused.

    An import makes hundreds of thousands of objects that stay; collecting while they are made takes a quarter of the
    time and finds nothing.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        with quiet():
            yield
    finally:
        if collected:
            gc.enable()


def keep_imported() -> None:
    """Tell the garbage collector that everything alive now stays, so that it never looks at it again.

    For processes of our own, once their libraries are imported and once more before they exit: else each collection,
    and the interpreter's end, walks through every library. Not for use inside a program that imports reeltune, whose
    own objects it would keep too.
    """
    gc.freeze()
