"""Benches on tiny numbers: for cards, which says what it didn't measure; of the server; of the simulated cluster."""

import json
import subprocess
import sys
from pathlib import Path

GPU = Path(__file__).parents[1] / "bench" / "gpu.py"
SERVER_LOAD = GPU.with_name("server_load.py")
CLUSTER = GPU.with_name("cluster.py")


def bench(*words):
    command = [sys.executable, str(GPU), "--tiny", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_rows_are_measured_and_the_others_say_that_they_are_not(tmp_path):
    answer = bench("--device", "cpu", "--folder", tmp_path, "--only", "reeltune", "--only", "int8", "--only", "12")
    assert answer.returncode == 0, answer.stderr
    rows = [line.split(" | ") for line in answer.stdout.splitlines() if line.startswith("| reeltune | int8 |")]
    measured = {row[2] for row in rows if row[5] != "not measured"}
    assert {row[3] for row in rows if row[5] != "not measured"} == {"12 GiB"}
    assert measured == {"streamed", "minimum"}
    results = json.loads((tmp_path / "gpu_tiny.json").read_text(encoding="utf-8"))
    assert all(row["480p"] > 0 and row["ram"] > 0 for row in results.values())
    assert len(results) == 2
    assert "resident: not measured" in answer.stdout  # a ratio of which one side is lacking


def test_a_device_that_is_not_there_is_said():
    answer = bench("--device", "cuda:99")
    assert answer.returncode == 2
    assert "isn't available" in answer.stderr


def test_the_load_of_a_server_loses_and_doubles_nothing():
    command = [sys.executable, str(SERVER_LOAD), "--jobs", "3", "--adders", "2", "--pollers", "3"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "| jobs lost / doubled / failed | 0 / 0 / 0 |" in answer.stdout
    assert "| requests that failed | 0 |" in answer.stdout
    assert "| retrieve, all others, ms | –" not in answer.stdout


def test_the_simulated_cluster_prints_all_its_tables():
    command = [sys.executable, str(CLUSTER), "--workers", "4", "--loads", "80", "--hours", "0.3", "--rates", "1"]
    command += ["--cases", "2", "--jobs", "4"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, answer.stderr
    rows = [line.split(" | ") for line in answer.stdout.splitlines() if line.startswith("| 4 | ")]
    loads = {(row[1], row[2]): float(row[4]) for row in rows}
    assert len(loads) == 10
    for kind in ("80", "batch"):
        assert loads[kind, "reeltune"] < loads[kind, "first-in-first-out"]
    bounds = [float(line.split()[-5]) for line in answer.stdout.splitlines() if line.endswith("% of its bound.")]
    assert len(bounds) == 2
    assert max(bounds) <= 100
    optimum = [
        line.split(" | ") for line in answer.stdout.splitlines() if line.startswith(("| optimum", "| reeltune |"))
    ]
    assert [float(row[2]) >= 1 for row in optimum] == [True, True]
