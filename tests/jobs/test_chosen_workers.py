"""What `--workers` and `--ray` ask for, and what doesn't go together."""

import pytest

from reeltune.errors import ClusterError, WorkersError
from reeltune.jobs import Runner
from reeltune.jobs.chosen import chosen_workers
from reeltune.jobs.ray_cluster import ClusterAddress


def test_workers_of_this_machine_are_used_without_a_cluster(root):
    handles, cluster = chosen_workers(root, "cpu,cpu")
    assert [handle.name for handle in handles] == ["cpu-1", "cpu-2"]
    assert cluster is None


@pytest.mark.parametrize(("workers", "cpu"), [(None, None), ("cpu", True)])
def test_a_cluster_takes_the_place_of_the_workers_of_this_machine(root, workers, cpu):
    assert chosen_workers(root, workers, "local") == ([], ClusterAddress("local", cpu=cpu))


@pytest.mark.parametrize(
    ("workers", "save_quantized", "words"), [("2", False, "--workers 2"), (None, True, "--save-quantized")]
)
def test_options_that_have_no_effect_on_a_cluster_are_refused(root, workers, save_quantized, words):
    with pytest.raises(WorkersError, match=words) as caught:
        chosen_workers(root, workers, "local", save_quantized=save_quantized)
    assert caught.value.hint


def test_a_runner_of_a_cluster_that_is_not_protected_does_not_start_and_leaves_the_root_free(root, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    runner = Runner(root, workers=[], cluster=ClusterAddress("10.0.0.1:6379"))
    with pytest.raises(ClusterError):
        runner.start()
    with Runner(root, workers=[]):  # takes the lock
        pass
