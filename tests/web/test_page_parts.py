"""Parts of the page without a browser: markup, the clock, errors of events."""

import re
import time
from types import SimpleNamespace

import pytest

from reeltune.errors import SettingsError
from reeltune.jobs import Queue, Runner, State
from reeltune.server.guard import _host
from reeltune.service.fields import inputs_of
from reeltune.service.queue_view import perform
from reeltune.service.workspace import Workspace
from reeltune.web.clock import PagePart, View, attempt, changes
from reeltune.web.current_job_panel import current_job_panel
from reeltune.web.events import reporting
from reeltune.web.markup import button, marked, notices_list, problem, text
from reeltune.web.model_panel import model_description, model_list
from reeltune.web.queue_panel import queue_panel
from reeltune.web.widgets import draw_field
from reeltune.web.words import in_words


def test_what_strangers_wrote_is_text_and_never_markup(workspace, root, define):
    evil = '<img src=x onerror="alert(1)">\u202e'
    define(
        "t2v_evil",
        {
            "name": "Evil",
            "architecture": "t2v",
            "URLs": ["https://example.org/<b>.safetensors"],
            "description": evil.rstrip("\u202e"),
        },
    )
    assert "<img" not in model_description(workspace, "t2v_evil")
    assert "&lt;img" in model_description(workspace, "t2v_evil")
    assert text(evil) == "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;\ufffd"
    assert "<b>" not in button("do", "<b>", title="<b>", confirm="<b>", name="<b>")
    assert "<b>" not in problem("<b>", "<b>")
    assert "<script" not in model_list(workspace, "t2v")


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:7860", "localhost"), ("LOCALHOST", "localhost"), ("[::1]:80", "::1"), ("", ""), ("a.b:1:2", "a.b")],
)
def test_the_name_in_a_host_header(header, name):
    assert _host(header) == name


def test_what_fails_in_a_part_of_the_page_is_shown_there_in_words():
    view = View(None, {}, 0)

    def broken(view):
        raise RuntimeError("<b>odd</b>")

    def refused(view):
        raise SettingsError("image_start is missing.", hint="Give --image-start FILE.")

    shown, error = attempt(broken, view)
    assert isinstance(error, RuntimeError)
    assert "&lt;b&gt;odd" in shown
    assert "The terminal shows details" in shown
    shown, error = attempt(refused, view)
    assert "“Start image” is missing." in shown
    assert "--image-start" not in shown
    assert attempt(lambda view: "fine", view) == ("fine", None)


def test_an_event_that_fails_answers_in_words_whatever_was_raised():
    said = object()

    @reporting(said)
    def broken():
        raise ValueError("odd")

    @reporting(said)
    def refused():
        raise SettingsError("No.")

    assert "ValueError: odd" in broken()[said]
    assert "No." in refused()[said]


def test_the_clock_sends_what_the_browser_does_not_show_and_logs_a_failure_once(caplog):
    def broken(view):
        raise RuntimeError("odd")

    parts = {
        "fine": PagePart(None, lambda view: "<p>fine</p>"),
        "broken": PagePart(None, broken),
        "list": PagePart(None, lambda view: ["a"], lambda rows: {"choices": rows}, html=False),
        "broken list": PagePart(None, broken, html=False),
    }
    view = View(None, {}, None)
    marks, updates = changes(view, parts, {})
    assert updates[0] == marked("fine", "<p>fine</p>")
    assert "RuntimeError: odd" in updates[1]
    assert updates[2] == {"choices": ["a"]}
    assert "__type__" in updates[3]  # nothing that a list could show
    assert caplog.text.count("could not be shown") == 2
    shown = {name: re.search('data-mark="(.*?)"', html)[1] for name, html in zip(parts, updates[:2], strict=False)}
    assert all("__type__" in row for row in changes(view, parts, marks | shown)[1])
    assert caplog.text.count("could not be shown") == 2
    again = changes(view, parts, marks | shown | {"fine": "what an answer that came late has put there"})[1]
    assert again[0] == updates[0]


def test_a_queue_of_huge_texts_is_shown_soon_and_cut_off(root):
    queue = Queue(root)
    workspace = Workspace(
        root, SimpleNamespace(queue=queue, running=list, workers=list, trouble=None, wake=lambda: None)
    )
    for piece in ("or ", " ", "a, or ", "(", "x", "--a or "):
        queue.add("x" * 100_000, {"prompt": piece * (100_000 // len(piece))})
        job = queue.take("a", 60)
        queue.finish(
            job.attempt,
            State.FAILED,
            error=piece * 200_000,
            hint=piece * 200_000,
            notices=[f"{number} {piece * 10}" for number in range(5000)],
        )
    begin = time.process_time()
    jobs = queue.jobs()
    shown = [queue_panel(workspace, jobs), notices_list(jobs[0].notices), in_words("or " * 500_000)]
    assert time.process_time() - begin < 2
    assert sum(map(len, shown)) < 200_000
    assert "4,950 more notices." in shown[1]


def test_the_button_of_the_queue_pauses_it_and_ends_the_pause(root):
    runner = Runner(root, workers=[])
    workspace = Workspace(root, runner)
    shown = queue_panel(workspace, [])
    assert "Pause the queue" in shown
    perform(workspace, re.search('data-do="(pause|resume)"', shown)[1], 0)
    shown = queue_panel(workspace, [])
    assert "Resume the queue" in shown
    assert "Pause the queue" not in shown
    current = current_job_panel(workspace, [])
    assert "The queue is paused by the user." in current
    assert "Continue now" not in current  # this pause doesn't end by itself
    perform(workspace, re.search('data-do="(pause|resume)"', shown)[1], 0)
    assert "Pause the queue" in queue_panel(workspace, [])
    assert "paused" not in current_job_panel(workspace, [])
    runner._pauses.begin("This computer is offline.", "Connect it.", jobs_wait=True)
    assert "Pause the queue" in queue_panel(workspace, [])
    assert "Continue now" in current_job_panel(workspace, [])


@pytest.mark.parametrize(
    "message",
    [
        "https://h/x can't be downloaded: reeltune is offline.",
        "'x' is an architecture that reeltune doesn't support.",
        "Another reeltune already makes the videos of /videos.",
    ],
)
def test_the_programs_name_in_a_message_is_no_command(message):
    assert in_words(message) == message


def test_advice_for_the_command_line_becomes_advice_for_the_page():
    assert in_words("It is gone. `reeltune pull nano_t2v` downloads it.") == (
        "It is gone. “Generate” downloads what is missing."
    )


def test_a_field_for_trajectories_takes_numpy_files(workspace, root):
    from reeltune import load_catalog

    field = inputs_of(load_catalog(root)["wanmove"].architecture)[1]
    (root / "uploads" / "tracks.npy").write_bytes(b"x")
    component = draw_field(field, {"custom_guide": "uploads/tracks.npy"}, workspace, "1")
    assert component.label == "Trajectories (required)"
    assert component.file_types == [".npy"]
    assert component.elem_classes == ["rt-takes-tracks"]
    assert component.value["path"].endswith("tracks.npy")
    assert draw_field(field, {}, workspace, "1").value is None
