import gc
import logging
import subprocess
import sys
import warnings

import pytest

from reeltune._quiet import importing, quiet, uncollected


def test_messages_below_error_are_silenced_and_come_back(caplog):
    log = logging.getLogger("some.library")
    with quiet():
        warnings.warn("an optional part is missing", stacklevel=1)
        log.warning("an optional part is missing")
        log.error("this matters")
    log.warning("heard again")
    assert caplog.messages == ["this matters", "heard again"]


@pytest.mark.parametrize("paused", [importing, uncollected])
def test_the_collector_is_paused_while_importing_only(paused):
    with paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_importing_the_engine_prints_nothing():
    answer = subprocess.run(
        [sys.executable, "-c", "from reeltune import Engine"], capture_output=True, text=True, check=True
    )
    assert (answer.stdout, answer.stderr) == ("", "")


@pytest.mark.parametrize("module", ["reeltune.weights.merging", "reeltune.engine.sheet"])
def test_importing_what_commands_import_by_itself_prints_nothing(module):
    answer = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("", "")
