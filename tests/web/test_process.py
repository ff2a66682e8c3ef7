"""What a page's process is given at its start, and what its terminal shows."""

import logging
import threading
from types import SimpleNamespace

import pytest

from reeltune.cli.logs import show_log
from reeltune.errors import ServeError
from reeltune.preferences import load_preferences
from reeltune.server import connections
from reeltune.server import serving as server
from reeltune.server.desktop import has_desktop


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
    page = SimpleNamespace(url="http://127.0.0.1", stop=lambda: None)
    monkeypatch.setattr(server, "launch", lambda *_: page)
    monkeypatch.setattr(server, "_stop_event", lambda: asked)

    def begin(serving, **given):
        server.serve(root, serving, **{"say": lambda line: None, **given})
        return options[-1]

    return begin


def saves_quantized(options):
    """Whether the only worker of a runner is started with the option."""
    (worker,) = options["workers"]
    return "--save-quantized" in worker._command


def test_a_switch_holds_for_the_process_and_changes_no_preference(begun, root):
    assert saves_quantized(begun(server.Serving(), save_quantized=True))
    assert not (root / "reeltune.json").exists()
    assert not load_preferences(root)[0].save_quantized
    assert not saves_quantized(begun(server.Serving()))


def test_jobs_of_a_page_that_others_can_reach_are_confined(begun):
    assert not begun(server.Serving())["confined"]
    assert begun(server.Serving(host="0.0.0.0", insecure=True))["confined"]
    assert begun(server.Serving(share=True, insecure=True))["confined"]


def test_a_port_that_is_taken_has_words_of_this_program(monkeypatch):
    with connections.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(connections, "FIRST_PORT", port)
        monkeypatch.setattr(connections, "LAST_PORT", port)
        for asked, words in ((port, f"Port {port} of 127.0.0.1 is already in use"), (None, "All ports")):
            with pytest.raises(ServeError, match=words) as caught:
                connections.listen("127.0.0.1", asked)
            assert "--port" in caught.value.hint


SCREEN = {"DISPLAY": ":0"}


@pytest.mark.parametrize(
    ("environment", "platform", "terminal", "expected"),
    [
        (SCREEN, "linux", True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True, True),
        ({}, "linux", True, False),
        ({}, "darwin", True, True),
        ({}, "win32", True, True),
        (SCREEN, "linux", False, False),  # a service, or a test
        ({}, "win32", False, False),
        ({**SCREEN, "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "linux", True, False),
        ({"SSH_TTY": "/dev/ttys001"}, "darwin", True, False),
    ],
)
def test_a_browser_is_opened_where_somebody_sits(environment, platform, terminal, expected):
    assert has_desktop(environment, platform, terminal) is expected


def test_the_page_is_opened_unless_told_otherwise(begun, monkeypatch):
    opened = []
    monkeypatch.setattr(server, "open_browser", opened.append)
    monkeypatch.setattr(server, "has_desktop", lambda *_: True)
    begun(server.Serving(browser=True))
    assert opened == ["http://127.0.0.1"]
    begun(server.Serving(browser=False))
    monkeypatch.setattr(server, "has_desktop", lambda *_: False)
    begun(server.Serving(browser=True))
    assert opened == ["http://127.0.0.1"]


def test_passwords_that_others_can_read_are_warned_of(begun, root, tmp_path):
    path = tmp_path / "auth file"
    path.write_text("ann:secret\n", encoding="utf-8")
    path.chmod(0o644)
    lines = []
    begun(server.Serving(auth_file=path), say=lines.append)
    assert any(line.endswith(f"chmod 600 '{path}'") for line in lines)
    path.chmod(0o600)
    lines.clear()
    options = begun(server.Serving(auth_file=path), say=lines.append)
    assert not any("chmod" in line for line in lines)
    assert options["confined"]  # behind a password others come in, by a proxy, say


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
