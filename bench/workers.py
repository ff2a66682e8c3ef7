"""Several workers on one machine: how many jobs they finish in a second, and how often they load a model.

    python bench/workers.py                    one and two CPU workers, each with one thread; a few minutes
    python bench/workers.py --rounds 3 --jobs 40

The jobs belong to four definitions of nano. In the order "mixed" each job has another model than the one before it; in
the order "grouped" all jobs of a model follow each other. One worker runs jobs in the user's order, first in, first
out. Workers have made a video of each model before the clock starts, so the start of their processes isn't measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["REELTUNE_OFFLINE"] = "1"

from reeltune.jobs import Runner, State
from reeltune.jobs.local import local_workers

DEFINITIONS = ("nano_t2v", "nano_neon", "first", "second")
SETTINGS = {"num_inference_steps": 20, "video_length": 17, "resolution": "64x64", "prompt": "a red circle"}


def prepare(root: Path) -> None:
    (root / "finetunes").mkdir(parents=True)
    for name in DEFINITIONS[2:]:
        model = {"name": name, "architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_neon"}
        (root / "finetunes" / f"{name}.json").write_text(json.dumps({"model": model}), encoding="utf-8")


def in_order(order: str, count: int) -> list[str]:
    mixed = [DEFINITIONS[number % len(DEFINITIONS)] for number in range(count)]
    return mixed if order == "mixed" else sorted(mixed)


def finish(runner: Runner, names: list[str], seed: int) -> list[int]:
    """Run jobs to their ends; returns their ids."""
    runner.pause()
    ids = [runner.queue.add(name, SETTINGS | {"seed": seed + number}).id for number, name in enumerate(names)]
    runner.resume()
    while any(job.state in (State.QUEUED, State.RUNNING) for job in runner.queue.jobs()):
        time.sleep(0.02)
    return ids


def measure(root: Path, workers: int, order: str, count: int) -> tuple[float, int]:
    """Seconds and loads of `count` jobs."""
    with Runner(root, workers=local_workers(root, ",".join(["cpu"] * workers))) as runner:
        finish(runner, [name for name in DEFINITIONS for _ in range(workers)], 1000)
        before = sum(member.loads for member in runner.crew.members())
        begun = time.monotonic()
        ids = finish(runner, in_order(order, count), 1)
        seconds = time.monotonic() - begun
        loads = sum(member.loads for member in runner.crew.members()) - before
        jobs = [runner.queue.get(id) for id in ids]
        assert {job.state for job in jobs} == {State.DONE}, Counter(job.state for job in jobs)
        assert len({path for job in jobs for path in job.outputs}) == count
    return seconds, loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cases = [(workers, order) for order in ("grouped", "mixed") for workers in (1, 2)]
    results: dict[tuple[int, str], list[tuple[float, int]]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                prepare(Path(folder))
                results[case].append(measure(Path(folder), *case, options.jobs))
    print("| order | workers | jobs in a second | ratio | loads in all | loads for each job |")
    print("|---|---|---|---|---|---|")
    for workers, order in cases:
        rates = [options.jobs / seconds for seconds, _ in results[workers, order]]
        one = [options.jobs / seconds for seconds, _ in results[1, order]]
        ratio = statistics.median(rate / base for rate, base in zip(rates, one, strict=True))
        loads = statistics.median(loads for _, loads in results[workers, order])
        print(
            f"| {order} | {workers} | {statistics.median(rates):.2f} | {ratio:.2f} | {loads:.0f} | "
            f"{loads / options.jobs:.2f} |"
        )


if __name__ == "__main__":
    main()
