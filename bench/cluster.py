"""The scheduler of the queue in a simulated cluster, beside other rules and, for small cases, beside the optimum.

    python bench/cluster.py                                   all tables, a few minutes
    python bench/cluster.py --table main --workers 100 --loads 95 --overtakes 8      other rules of the scheduler

Nothing is computed or loaded: a clock jumps from event to event, and `reeltune.jobs.schedule` decides as it does in
reeltune. The times of steps and LoRAs are those of docs/benchmarks.md, "Wan 14B on a card" (one H200, int8). How long
a load takes depends on the storage: `--rate` is its speed in GB/s for each worker, an assumption.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import statistics
import time
from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from reeltune.jobs.schedule import JobNeeds, QueuedJob, Rules, WorkerState, assign

# --- measured: docs/benchmarks.md, "Wan 14B on a card", one H200, int8, resident ---------------------------------
STEP_480P = 6.91  # seconds, with guidance: two passes
STEP_720P = 24.85
PASS_480P = 3.46
START_SECONDS = 1.57  # a load from the page cache
LORA_SECONDS = 1.57  # other LoRAs on the same weights
# --- assumed -----------------------------------------------------------------------------------------------------
TRANSFORMER_GB = 14.4  # 14 billion weights in int8
COMPONENTS_GB = 7.0  # UMT5-XXL in int8, the VAE
VIDEOS = ((0.70, 4 * PASS_480P), (0.25, 20 * STEP_480P), (0.05, 20 * STEP_720P))  # share, seconds
MODELS = 30
LORA_MODELS = 6  # of them: LoRAs on the weights of the first model
OTHER_FAMILY = 6  # of them: another family, with components of its own
LOOK_SECONDS = 1.0  # how often a runner looks for jobs without being told


@dataclass(frozen=True)
class Arrival:
    """A job of the simulation. `seconds`: how long it computes."""

    id: int
    at: float
    needs: JobNeeds
    model: int
    seconds: float

    @property
    def longest(self) -> float:
        """How long it occupies a worker that holds none of its weights."""
        return self.seconds + (self.needs.load_seconds or 0.0)


@dataclass
class Machine:
    """A worker of the simulation. `models`: what it holds, the last used one at the end."""

    name: str
    models: OrderedDict[int, JobNeeds] = field(default_factory=OrderedDict)
    free: bool = True
    state: WorkerState | None = None


@dataclass
class Result:
    """What one rule made of the jobs. Waits end when a job begins to compute, so they contain its load."""

    rule: str
    loading: float = 0.0
    computing: float = 0.0
    loads: int = 0
    waits: dict[int, float] = field(default_factory=dict)
    overtaken: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    ahead: dict[int, float] = field(default_factory=dict)  # seconds of the jobs that waited when a job came
    decisions: int = 0
    deciding: float = 0.0

    @property
    def share(self) -> float:
        """Loading in percent of the time that workers were busy."""
        return 100 * self.loading / (self.loading + self.computing)


def finetunes(rate: float) -> list[JobNeeds]:
    """The models, the most popular one first. `rate`: of the storage, in GB/s."""
    load = START_SECONDS + (TRANSFORMER_GB + COMPONENTS_GB) / rate
    models = []
    for number in range(MODELS):
        family = "other" if number % (MODELS // OTHER_FAMILY) == MODELS // OTHER_FAMILY - 1 else "wan"
        with_lora = number % (MODELS // LORA_MODELS) == 1
        file = "model0" if with_lora else f"model{number}"
        loras = (f"lora{number}",) if with_lora else ()
        files = frozenset({file}), frozenset({f"components of {family}"})
        models.append(JobNeeds(f"model{number}", loras, *files, family, 24 * 10**9, load))
    return models


def seconds_to_load(needs: JobNeeds, held: JobNeeds | None, rate: float) -> float:
    """How long a worker loads that holds `held`."""
    if held is None:
        return START_SECONDS + (TRANSFORMER_GB + COMPONENTS_GB) / rate
    if held.model == needs.model:
        return 0.0
    if held.transformer_files == needs.transformer_files:
        return LORA_SECONDS
    if held.component_files == needs.component_files:
        return START_SECONDS + TRANSFORMER_GB / rate
    return START_SECONDS + (TRANSFORMER_GB + COMPONENTS_GB) / rate


def arrivals(models: Sequence[JobNeeds], workers: int, load: float, hours: float, seed: int) -> list[Arrival]:
    """Jobs as a Poisson process. `load`: computing in percent of what the workers can do, without any loading."""
    chance = random.Random(seed)
    weights = [1 / (place + 1) for place in range(len(models))]  # Zipf
    mean = sum(share * seconds for share, seconds in VIDEOS)
    gap = mean / (workers * load / 100)
    jobs, at = [], 0.0
    while (at := at + chance.expovariate(1 / gap)) < hours * 3600:
        model = chance.choices(range(len(models)), weights)[0]
        seconds = chance.choices([s for _, s in VIDEOS], [share for share, _ in VIDEOS])[0] * chance.uniform(0.8, 1.2)
        jobs.append(Arrival(len(jobs), at, models[model], model, seconds))
    return jobs


# --- the rules ---------------------------------------------------------------------------------------------------

Choice = list[tuple[int, Machine]]
Rule = Callable[[dict[int, Arrival], list[Machine], float], Choice]


def first_in_first_out(chance: random.Random, *, warm: bool) -> Rule:
    """The first job on any free worker. `warm`: on one that holds its model, where one is free."""

    def choose(waiting: dict[int, Arrival], machines: list[Machine], now: float) -> Choice:
        free = [machine for machine in machines if machine.free]
        chance.shuffle(free)
        chosen: Choice = []
        for job in itertools.islice(waiting.values(), len(free)):
            holders = [machine for machine in free if warm and job.model in machine.models]
            machine = holders[0] if holders else free[-1]
            free.remove(machine)
            chosen.append((job.id, machine))
        return chosen

    return choose


def multiplexing(chance: random.Random) -> Rule:
    """Ray Serve's rule with one request at a time: for one to two seconds only replicas that hold the model, or, where
    none does, those with the fewest models; then any replica. Requests are served in the order in which they came.
    """
    until: dict[int, float] = {}

    def choose(waiting: dict[int, Arrival], machines: list[Machine], now: float) -> Choice:
        free = [machine for machine in machines if machine.free]
        held = {model for machine in machines for model in machine.models}
        fewest = min(len(machine.models) for machine in machines)
        chosen: Choice = []
        for job in waiting.values():
            if not free:
                break
            candidates = free
            if now < until.setdefault(job.id, job.at + chance.uniform(1.0, 2.0)):
                if job.model in held:
                    candidates = [machine for machine in free if job.model in machine.models]
                else:
                    candidates = [machine for machine in free if len(machine.models) == fewest]
            if candidates:
                machine = chance.choice(candidates)
                free.remove(machine)
                chosen.append((job.id, machine))
        return chosen

    return choose


def reeltune(rules: Rules) -> Rule:
    """The scheduler of reeltune."""
    queued: dict[int, QueuedJob] = {}

    def choose(waiting: dict[int, Arrival], machines: list[Machine], now: float) -> Choice:
        for id in reversed(waiting):
            if id in queued:
                break
            queued[id] = QueuedJob(id, waiting[id].needs, id, waiting[id].at)
        states = [machine.state for machine in machines if machine.state is not None]
        by_name = {machine.name: machine for machine in machines if machine.free}
        made = assign([queued[id] for id in waiting], states, now, rules)
        return [(assignment.job, by_name[assignment.worker]) for assignment in made]

    return choose


# --- the clock ---------------------------------------------------------------------------------------------------


def simulate(
    name: str, rule: Rule, jobs: Sequence[Arrival], workers: int, rate: float, *, kept: int = 1, tick: float = 0.0
) -> Result:
    """Run all jobs. `kept`: how many models a worker holds. `tick`: seconds between decisions; 0 for at once."""
    chance = random.Random(7)  # how wrong the estimates of the ends are
    machines = [Machine(f"worker-{number:04}") for number in range(workers)]
    for machine in machines:
        machine.state = WorkerState(machine.name, machine.name, True, None, None, None, 0.0, 48 * 10**9, False)
    result, waiting = Result(name), dict[int, Arrival]()
    ends: list[tuple[float, int, Machine]] = []
    coming, now, order, work = 0, 0.0, itertools.count(), 0.0
    while coming < len(jobs) or waiting or ends:
        look = now + max(tick, LOOK_SECONDS) if waiting and any(m.free for m in machines) else math.inf
        arrives = jobs[coming].at if coming < len(jobs) else math.inf
        now = min(look, arrives, ends[0][0] if ends else math.inf)
        now = math.ceil(now / tick) * tick if tick else now
        while coming < len(jobs) and jobs[coming].at <= now:
            waiting[jobs[coming].id] = jobs[coming]
            result.ahead[jobs[coming].id] = work
            work += jobs[coming].longest
            coming += 1
        while ends and ends[0][0] <= now:
            at, _, machine = heapq.heappop(ends)
            machine.free = True
            if machine.state is not None:
                machine.state = replace(machine.state, free=True, running=None, busy_until=None, last_used=at)
        if not waiting or not any(machine.free for machine in machines):
            continue
        began = time.perf_counter()
        chosen = rule(waiting, machines, now)
        result.deciding += time.perf_counter() - began
        result.decisions += 1
        for id, machine in chosen:
            job = waiting.pop(id)
            work -= job.longest
            for other in waiting:
                if other > id:
                    break
                result.overtaken[other] += 1
            end = _begin(job, machine, now, rate, kept, result, chance)
            heapq.heappush(ends, (end, next(order), machine))
    return result


def _begin(
    job: Arrival, machine: Machine, now: float, rate: float, kept: int, result: Result, chance: random.Random
) -> float:
    """Start a job; returns when it ends."""
    last = next(reversed(machine.models.values()), None)
    load = 0.0 if job.model in machine.models else seconds_to_load(job.needs, last, rate)
    result.loads += load > LORA_SECONDS
    result.loading += load
    result.computing += job.seconds
    result.waits[job.id] = now + load - job.at
    machine.models[job.model] = job.needs
    machine.models.move_to_end(job.model)
    while len(machine.models) > kept:
        machine.models.popitem(last=False)
    machine.free = False
    if machine.state is not None:
        expected = now + (load + job.seconds) * chance.uniform(0.8, 1.2)
        machine.state = replace(
            machine.state, free=False, holds=job.needs, running=job.id, busy_until=expected, last_used=now
        )
    return now + load + job.seconds


# --- the optimum -------------------------------------------------------------------------------------------------


def best_mean_wait(jobs: Sequence[Arrival], workers: int, rate: float) -> float:
    """The smallest mean wait of all ways to order the jobs on the workers, with every arrival known in advance."""
    best = math.inf

    def search(left: tuple[Arrival, ...], state: tuple[tuple[float, JobNeeds | None], ...], total: float) -> None:
        nonlocal best
        if total >= best:
            return
        if not left:
            best = total
            return
        for index, job in enumerate(left):
            for number in range(len(state)):
                if state[number] in state[:number]:  # two workers in the same state
                    continue
                free, held = state[number]
                starts = max(free, job.at) + seconds_to_load(job.needs, held, rate)
                after = (*state[:number], (starts + job.seconds, job.needs), *state[number + 1 :])
                search((*left[:index], *left[index + 1 :]), after, total + starts - job.at)

    search(tuple(jobs), ((0.0, None),) * workers, 0.0)
    return best / len(jobs)


# --- tables -------------------------------------------------------------------------------------------------------

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
