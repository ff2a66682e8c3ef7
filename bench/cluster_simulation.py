"""A simulated cluster: its jobs, its workers, rules for which job they get, a clock, and the optimum of small cases.

The times of steps and LoRAs are those of docs/benchmarks.md, "Wan 14B on a card" (one H200, int8). `bench/cluster.py`
prints tables of it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
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
