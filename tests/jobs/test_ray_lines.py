"""The lines between the runner and the process that is connected to a cluster."""

import pytest

from reeltune.jobs.codec import pack_task
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import CancelTask
from reeltune.jobs.ray_lines import NOBODY, RayLine, RayNode, join, nodes_of, split, told_death


def test_a_line_carries_a_message_of_the_codec():
    content = pack_task(CancelTask(Attempt(3, 1)))
    line = split(join("cancel", "ray-a-gpu0", content))
    assert (line.kind, line.worker, line.content) == ("cancel", "ray-a-gpu0", content.rstrip(b"\n"))


def test_a_line_without_content_has_no_values():
    line = split(join("kill", "ray-a-gpu0"))
    assert line == RayLine("kill", "ray-a-gpu0", b"")
    assert line.values == {}


def test_a_death_names_its_attempt():
    line = split(join("died", "w", told_death(Attempt(3, 2), "It ended.", "Ägain.")))
    assert line.values == {"job": 3, "number": 2, "message": "It ended.", "hint": "Ägain."}


def test_workers_are_listed():
    row = {"name": "ray-a-cpu", "node": "ray-a", "device": "cpu", "memory": 5}
    line = split(join("workers", content={"workers": [row]}))
    assert line.worker == NOBODY
    assert nodes_of(line) == [RayNode("ray-a-cpu", "ray-a", "cpu", 5)]


@pytest.mark.parametrize("content", [b"{}", b'{"workers": 3}', b'{"workers": [3]}', b"[]", b"{"])
def test_a_broken_list_is_an_error(content):
    with pytest.raises(ValueError):
        nodes_of(RayLine("workers", NOBODY, content))


@pytest.mark.parametrize("line", [b"", b"event\n", b"event w\n", b"\xff w {}\n"])
def test_a_broken_line_is_an_error(line):
    with pytest.raises(ValueError):
        split(line)
