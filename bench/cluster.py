"""The scheduler of the queue in a simulated cluster, beside other rules and, for small cases, beside the optimum.

    python bench/cluster.py                                   all tables, a few minutes
    python bench/cluster.py --table main --workers 100 --loads 95 --overtakes 8      other rules of the scheduler

Nothing is computed or loaded: a clock jumps from event to event, and `reeltune.jobs.schedule` decides as it does in
reeltune. The times of steps and LoRAs are those of docs/benchmarks.md, "Wan 14B on a card" (one H200, int8). How long
a load takes depends on the storage: `--rate` is its speed in GB/s for each worker, an assumption.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cluster_simulation import (
    LOOK_SECONDS,
    MODELS,
    PASS_480P,
    STEP_480P,
    Arrival,
    Result,
    Rule,
    arrivals,
    best_mean_wait,
    finetunes,
    first_in_first_out,
    multiplexing,
    reeltune,
    simulate,
)
from reeltune.jobs.schedule import Rules

HEAD = (
    "| workers | load, % | rule | loading, % | loads per job | wait, s: median | p95 | p95 of the ten rarest models "
    "| longest | most overtakes | ms per decision |\n|---|---|---|---|---|---|---|---|---|---|---|"
)
SERVE = "Ray Serve's multiplexing"


def all_rules(rules: Rules) -> list[tuple[str, Rule, int]]:
    """Name, rule, and how many models a worker holds."""
    return [
        ("reeltune", reeltune(rules), 1),
        ("first-in-first-out", first_in_first_out(random.Random(1), warm=False), 1),
        ("first-in-first-out, warm worker first", first_in_first_out(random.Random(1), warm=True), 1),
        (SERVE, multiplexing(random.Random(1)), 1),
        (f"{SERVE}, 3 models a worker", multiplexing(random.Random(1)), 3),
    ]


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that so many percent of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def row(workers: int, load: str, jobs: Sequence[Arrival], result: Result) -> str:
    """One row of the tables."""
    waits = list(result.waits.values())
    cells = (
        f"{workers:,}",
        load,
        result.rule,
        f"{result.share:.1f}",
        f"{result.loads / len(jobs):.2f}",
        f"{statistics.median(waits):,.0f}",
        f"{percentile(waits, 95):,.0f}",
        f"{percentile([result.waits[job.id] for job in jobs if job.model >= MODELS - 10], 95):,.0f}",
        f"{max(waits):,.0f}",
        f"{max(result.overtaken.values(), default=0):,}",
        f"{1000 * result.deciding / max(1, result.decisions):.1f}",
    )
    return f"| {' | '.join(cells)} |"


def share_of_bound(jobs: Sequence[Arrival], workers: int, result: Result, rules: Rules) -> float:
    """The longest wait, in percent of the bound that docs/cluster.md states for that job."""
    longest = max(job.longest for job in jobs)
    until = list(itertools.accumulate(job.longest for job in jobs))
    times = [job.at for job in jobs]
    worst = 0.0
    for job in jobs:
        newest = job.at + max(rules.newer_seconds, rules.newer_loads * rules.seconds_to_load(job.needs))
        newer = until[bisect_right(times, newest) - 1] - until[job.id]
        overtaking = min(newer, rules.overtakes * workers * longest)
        load = rules.seconds_to_load(job.needs)
        bound = rules.hold_seconds + longest + (result.ahead[job.id] + overtaking) / workers + load
        worst = max(worst, result.waits[job.id] / bound)
    return 100 * worst


def main_table(given: argparse.Namespace, rules: Rules) -> None:
    """All rules on the same jobs, which come at random times."""
    print(f"\n{HEAD}")
    shares = []
    for count, load in itertools.product(given.workers, given.loads):
        jobs = arrivals(finetunes(given.rate), count, load, given.hours, given.seed)
        for name, rule, kept in all_rules(rules):
            tick = LOOK_SECONDS if count > 200 else 0.0
            result = simulate(name, rule, jobs, count, given.rate, kept=kept, tick=tick)
            print(row(count, f"{load:g}", jobs, result), flush=True)
            if name == "reeltune":
                shares.append(share_of_bound(jobs, count, result, rules))
    print(f"\nNo job of reeltune waited longer than {max(shares):.0f} % of its bound.")


def batch_table(given: argparse.Namespace, rules: Rules) -> None:
    """All jobs are added at once, their models in random order."""
    print(f"\n{HEAD}")
    for count in given.workers:
        jobs = arrivals(finetunes(given.rate), count, 100, given.hours, given.seed)
        jobs = [replace(job, at=0.0) for job in jobs[: count * given.batch]]
        for name, rule, kept in all_rules(rules):
            result = simulate(name, rule, jobs, count, given.rate, kept=kept)
            print(row(count, "batch", jobs, result), flush=True)
            if name == "reeltune":
                share = share_of_bound(jobs, count, result, rules)
    print(f"\nNo job of reeltune waited longer than {share:.0f} % of its bound.")


def storage_table(given: argparse.Namespace, rules: Rules) -> None:
    """How the speed of the storage decides what loading costs."""
    print("\n| storage, GB/s for each worker | a load, s | rule | loading, % | wait, s: median | p95 |")
    print("|---|---|---|---|---|---|")
    count, load = given.workers[-1], given.loads[len(given.loads) // 2]
    for rate in given.rates:
        models = finetunes(rate)
        jobs = arrivals(models, count, load, given.hours, given.seed)
        for name, rule, kept in all_rules(rules)[:4]:
            result = simulate(name, rule, jobs, count, rate, kept=kept)
            waits = list(result.waits.values())
            print(
                f"| {rate:g} | {models[0].load_seconds:.0f} | {name} | {result.share:.1f} "
                f"| {statistics.median(waits):,.0f} | {percentile(waits, 95):,.0f} |",
                flush=True,
            )


def optimum_table(given: argparse.Namespace, rules: Rules) -> None:
    """Small cases beside the best of all possible orders."""
    print("\n| rule | mean wait, s | relative to the optimum | worst case |\n|---|---|---|---|")
    models = finetunes(given.rate)
    waits: dict[str, list[float]] = defaultdict(list)
    for case in range(given.cases):
        chance = random.Random(case)
        few = [0, 1, 2]
        jobs = []
        for id, at in enumerate(sorted(chance.uniform(0, 200) for _ in range(given.jobs))):
            model = chance.choice(few)
            jobs.append(Arrival(id, at, models[model], model, chance.choice([4 * PASS_480P, 10 * STEP_480P])))
        waits["optimum that knows all arrivals"].append(best_mean_wait(jobs, 2, given.rate))
        for name, rule, kept in all_rules(rules)[:4]:
            result = simulate(name, rule, jobs, 2, given.rate, kept=kept)
            waits[name].append(statistics.mean(result.waits.values()))
    best = next(iter(waits.values()))
    for name, values in waits.items():
        worst = max(value / least for value, least in zip(values, best, strict=True))
        mean = statistics.mean(values)
        print(f"| {name} | {mean:.1f} | {mean / statistics.mean(best):.2f} | {worst:.2f} |")


TABLES = {"main": main_table, "batch": batch_table, "storage": storage_table, "optimum": optimum_table}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--table", choices=TABLES, nargs="+", default=[*TABLES])
    words.add_argument("--workers", type=int, nargs="+", default=[10, 30, 100])
    words.add_argument("--loads", type=float, nargs="+", default=[70, 85, 95], help="percent")
    words.add_argument("--hours", type=float, default=4)
    words.add_argument("--rate", type=float, default=1.0, help="GB/s of the storage for each worker")
    words.add_argument(
        "--rates", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 8], help="those of the table of storage"
    )
    words.add_argument("--batch", type=int, default=20, help="jobs for each worker in the table of batches")
    words.add_argument("--cases", type=int, default=40, help="of the table of the optimum")
    words.add_argument("--jobs", type=int, default=7, help="of each case of the table of the optimum")
    words.add_argument("--seed", type=int, default=1)
    for name, of in (("overtakes", int), ("newer_loads", float), ("hold_seconds", float), ("replace_cost", float)):
        words.add_argument(f"--{name.replace('_', '-')}", type=of, default=getattr(Rules(), name), help="a rule")
    given = words.parse_args()
    rules = Rules(
        overtakes=given.overtakes,
        newer_loads=given.newer_loads,
        hold_seconds=given.hold_seconds,
        replace_cost=given.replace_cost,
    )
    began = time.perf_counter()
    for name in given.table:
        TABLES[name](given, rules)
    print(f"\n{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
