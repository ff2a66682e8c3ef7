"""Messages as lines of JSON: both ways, and lines from other versions or from nobody knows where."""

import dataclasses
import json
import random

import pytest

from reeltune.events import Batch, FilesUsed, LatentsStored, Notice, Planned, PlannedFile, Preview, Progress, UsedFile
from reeltune.jobs.codec import _ENVELOPE, _EVENTS, _TASKS, pack_event, pack_task, unpack_event, unpack_task
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import CancelTask, Done, Failed, Ready, RunTask, Saved, Stopped

ATTEMPT = Attempt(3, 2)
EVENTS = [
    Progress("denoise", 3, 20),
    Progress("download", 3, None, "bytes", "x.safetensors"),
    Notice("a\nnotice, ü"),
    Planned((PlannedFile("a", None, 0), PlannedFile("b", 5, 1)), 5, 9),
    Preview(b"\x00\xff"),
    LatentsStored("latents/x.safetensors"),
    Batch(2, 3),
    FilesUsed((UsedFile("a", 5),)),
    Ready("0.1"),
    Saved("a.mp4"),
    Done(),
    Stopped(),
    Failed("No.", "Else.", shared=True),
]
TASKS = [
    RunTask(ATTEMPT, "m", {"prompt": "ä\n", "seed": 7, "image_refs": ["a"]}, 2, "x.safetensors", confined=True),
    RunTask(ATTEMPT, "m", {}),
    CancelTask(ATTEMPT),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_both_ways(event):
    line = pack_event(ATTEMPT, event)
    assert line.count(b"\n") == 1
    received = unpack_event(line)
    assert (received.attempt, received.event, received.problems) == (ATTEMPT, event, ())
    assert unpack_event(pack_event(None, event)).attempt is None


@pytest.mark.parametrize("task", TASKS)
def test_tasks_both_ways(task):
    received = unpack_task(pack_task(task))
    assert (received.attempt, received.task, received.problems) == (ATTEMPT, task, ())


def test_every_message_has_an_example_here_and_no_field_with_a_name_of_the_envelope():
    assert {type(event) for event in EVENTS} == set(_EVENTS.values())
    assert {type(task) for task in TASKS} == set(_TASKS.values())
    for message_type in _EVENTS.values():
        assert not {field.name for field in dataclasses.fields(message_type)} & _ENVELOPE


def changed(line, **changes):
    return json.dumps({**json.loads(line), **changes}).encode()


def test_what_a_newer_version_adds_is_reported_and_the_rest_is_used():
    line = changed(pack_event(ATTEMPT, Progress("denoise", 3, 20)), schema_version=2, mood="good")
    received = unpack_event(line)
    assert received.event == Progress("denoise", 3, 20)
    assert received.problems == ("A message has schema version 2, not 1.", "Unknown field 'mood' of Progress.")
    planned = pack_event(ATTEMPT, Planned((PlannedFile("a", 1, 0),), 5, 9))
    received = unpack_event(planned.replace(b'"kept": 0', b'"kept": 0, "speed": 9'))
    assert (received.event.files, received.problems) == (
        (PlannedFile("a", 1, 0),),
        ("Unknown field 'speed' of PlannedFile.",),
    )
    unknown = unpack_event(changed(line, type="mood"))
    assert (unknown.attempt, unknown.event) == (ATTEMPT, None)
    assert "Unknown message 'mood'." in unknown.problems


@pytest.mark.parametrize(
    ("event", "changes", "used"),
    [
        (Failed("No.", "Else."), {"error": 5, "shared": "yes"}, Failed("", "Else.")),
        (Progress("load", 0, None), {"unit": [], "subject": None}, Progress("load", 0, None)),
        (Progress("load", 0, None), {"done": True}, None),
        (Progress("load", 0, None), {"total": "x"}, None),
        (Notice("x"), {"message": None}, None),
        (Preview(b"x"), {"image": "é"}, None),
        (Planned((), 1, 1), {"files": [3]}, None),
        (Planned((), 1, 1), {"files": {}}, None),
        (Saved("x"), {"path": ["x"]}, None),
        (Done(), {"type": ["done"]}, None),
    ],
)
def test_invalid_values_are_reported_and_have_their_default_where_there_is_one(event, changes, used):
    received = unpack_event(changed(pack_event(ATTEMPT, event), **changes))
    assert (received.attempt, received.event) == (ATTEMPT, used)
    assert received.problems


@pytest.mark.parametrize("attempt", [None, 3, {}, {"job": 3}, {"job": "3", "number": 1}, {"job": True, "number": 1}])
def test_an_invalid_attempt_is_none(attempt):
    received = unpack_event(changed(pack_event(ATTEMPT, Done()), attempt=attempt))
    assert (received.attempt, received.event) == (None, Done())
    assert unpack_task(changed(pack_task(TASKS[0]), attempt=attempt)).task is None


def test_a_task_that_can_not_be_understood_still_names_its_attempt():
    received = unpack_task(changed(pack_task(TASKS[0]), settings=[]))
    assert (received.type, received.attempt, received.task) == ("run", ATTEMPT, None)
    assert received.problems == ("Invalid value for 'settings' of RunTask.",)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"\xff", b"3", b"[" * 5000])
def test_a_line_that_is_no_object_is_an_error(line):
    for unpack in (unpack_event, unpack_task):
        with pytest.raises(ValueError, match="message"):
            unpack(line)


def test_thousands_of_mutated_lines():
    """A message, None with a problem, or ValueError comes of every line, and nothing else."""
    choices = random.Random(4)
    pieces = [b"null", b"9" * 310, b"1e999", b'"\\ud800"', b"[]", b"{}", b'""', b"-1", b"true"]
    lines = [pack_event(ATTEMPT, event) for event in EVENTS] + [pack_task(task) for task in TASKS]
    understood = 0
    for _ in range(4000):
        line = choices.choice(lines)
        at = choices.randrange(len(line))
        line = line[:at] + choices.choice(pieces) + line[at + choices.choice([0, 1, 4, 8]) :]
        for unpack in (unpack_event, unpack_task):
            try:
                received = unpack(line)
            except ValueError:
                continue
            message = getattr(received, "event", None) or getattr(received, "task", None)
            understood += message is not None
            assert message is not None or received.problems
    assert understood > 100
