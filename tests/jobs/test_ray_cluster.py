"""Real Ray clusters with several nodes on this machine, and the tiny model."""

import pytest
from ray_namespace import run_in_namespace


@pytest.mark.parametrize(
    ("module", "function", "last"),
    [
        ("ray_story", "story", "end"),  # jobs, previews, a cancel; a node leaves, another one joins
        ("ray_service", "service", "end"),  # a server and its API: 60 jobs, nodes and the server are killed
        ("ray_troubles", "troubles", "end"),  # inputs, kept latents; processes and the head are killed
        ("ray_cards", "cards", "token used"),  # two cards of one node, idle actors, tokens
        ("ray_cards", "local", "local done"),  # no cluster but this machine
    ],
)
def test_a_cluster(tmp_path, module, function, last):
    printed = run_in_namespace(module, function, tmp_path, 900)
    assert printed.splitlines()[-1].endswith(last), printed
