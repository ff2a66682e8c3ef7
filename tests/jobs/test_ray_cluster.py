"""A Ray cluster with three nodes on this machine, and the tiny model: jobs, cancel, a lost node, a new one."""

from ray_namespace import run_in_namespace


def test_jobs_run_on_the_nodes_of_a_cluster_whoever_leaves_and_joins(tmp_path):
    run_in_namespace("ray_story", "story", tmp_path, 900)
