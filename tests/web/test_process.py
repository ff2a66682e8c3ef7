"""What a page's process is given at its start, and what its terminal shows."""

import logging
import threading

import pytest

from reeltune.cli.logs import show_log
from reeltune.preferences import load_preferences
from reeltune.web import server


@pytest.fixture
def begun(root, monkeypatch):
    """Serve until the page would be up; returns the options of each runner."""
    options = []

    class Runner(server.Runner):
        def __init__(self, root, **given):
            options.append(given)
            super().__init__(root, **given)

    asked = threading.Event()
    asked.set()
    monkeypatch.setattr(server, "Runner", Runner)
    monkeypatch.setattr(server, "launch", lambda *_: "http://127.0.0.1")
    monkeypatch.setattr(server, "_until_asked", lambda: asked)

    def begin(serving, **given):
        server.serve(root, serving, say=lambda line: None, **given)
        return options[-1]

    return begin


def test_a_switch_holds_for_the_process_and_changes_no_preference(begun, root):
    assert begun(server.Serving(), save_quantized=True)["save_quantized"]
    assert not (root / "reeltune.json").exists()
    assert not load_preferences(root)[0].save_quantized
    assert not begun(server.Serving())["save_quantized"]


def test_jobs_of_a_page_that_others_can_reach_are_confined(begun):
    assert not begun(server.Serving())["confined"]
    assert begun(server.Serving(host="0.0.0.0", insecure=True))["confined"]
    assert begun(server.Serving(share=True, insecure=True))["confined"]


@pytest.mark.parametrize(("port", "words"), [(7999, "Port 7999 of 127.0.0.1"), (None, "No port of 127.0.0.1")])
def test_a_port_that_is_taken_has_words_of_this_program(port, words):
    error = server._no_port(server.Serving(port=port))
    assert error.message.startswith(words)
    assert "--port" in error.hint


@pytest.fixture
def _log():
    logger = logging.getLogger("reeltune")
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.mark.usefixtures("_log")
@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, "info warning error"), ({"quiet": True}, "error"), ({"verbose": True}, "debug info warning error")],
)
def test_the_terminal_shows_the_log(capsys, options, shown):
    for _ in range(2):
        show_log(**options)
    log = logging.getLogger("reeltune.jobs")
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("Job 1: %s", f"{level} [red]\x1b[2J")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[3] for line in lines] == shown.split()
    assert "\x1b" not in "".join(lines)
    assert "[red]" in lines[0]
