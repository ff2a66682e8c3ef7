"""Which job begins on which worker: each rule by examples, all of them together in random situations and sequences."""

import itertools
import random
import time
from collections import Counter
from dataclasses import replace

import pytest

from reeltune.jobs.schedule import JobNeeds, QueuedJob, Rules, WorkerState, assign, schedule

NOW = 10_000.0
GB = 10**9


def needs(model="a", *loras, file="", family="wan", components="wan", size=10 * GB, load=60.0):
    files = frozenset({file or model}), frozenset({components} if components else ())
    return JobNeeds(model, loras, *files, family, size, load)


def job(id, what=None, position=None, created=NOW):
    return QueuedJob(id, what or needs(), id if position is None else position, created)


def free(name, holds=None, last_used=NOW - 50, capacity=24 * GB, draining=False):
    return WorkerState(name, name, True, holds, None, None, last_used, capacity, draining)


def busy(name, holds=None, left=None, last_used=NOW - 100, capacity=24 * GB, draining=False):
    until = None if left is None else NOW + left
    return WorkerState(name, name, False, holds or needs(), 99, until, last_used, capacity, draining)


def pairs(decision):
    return {assignment.job: assignment.worker for assignment in decision.assignments}


def decide(jobs, workers, **rules):
    return schedule(jobs, workers, NOW, Rules(**rules))


# --- which worker -------------------------------------------------------------------------------------------------------

WANTED = needs("a", "x", file="base")
BY_PREFERENCE = [
    (free("model", WANTED), "runs on model, which holds its weights"),
    (free("files", needs("b", "y", file="base")), "runs on files, which holds the weights of its model and only changes LoRAs"),
    (free("components", needs("c")), "runs on components, which holds the text encoder and the VAE that it needs"),
    (free("empty"), "runs on empty, which holds no weights yet"),
    (free("oldest", needs("d", components="e", family="e"), 1.0), "runs on oldest, which was used least recently"),
    (free("newest", needs("d", components="e", family="e"), 2.0), "runs on newest, which was used least recently"),
]  # fmt: skip


@pytest.mark.parametrize("best", range(len(BY_PREFERENCE)), ids=[worker.name for worker, _ in BY_PREFERENCE])
def test_a_job_prefers_the_worker_that_holds_most_of_its_weights(best):
    workers = [worker for worker, _ in BY_PREFERENCE[best:]]
    decision = decide([job(1, WANTED)], reversed(workers))
    assert pairs(decision) == {1: workers[0].name}
    assert decision.assignments[0].reason == BY_PREFERENCE[best][1]
    assert decision.waits == {}


def test_a_worker_prefers_the_job_whose_weights_it_holds():
    jobs = [job(1, needs("b")), job(2, needs("a"))]
    assert pairs(decide(jobs, [free("w", needs("a"))])) == {2: "w"}


def test_a_job_takes_no_worker_that_another_job_needs_more():
    jobs = [job(1, needs("b")), job(2, needs("a"))]
    assert pairs(decide(jobs, [free("w", needs("a")), free("x", needs("c"))])) == {1: "x", 2: "w"}


def test_other_files_of_the_same_definition_are_not_the_same_weights():
    workers = [free("w", needs("a", file="int8")), free("x", needs("a", file="bf16"))]
    assert pairs(decide([job(1, needs("a", file="bf16"))], workers)) == {1: "x"}


def test_of_two_workers_with_the_weights_the_one_used_last_is_taken():
    workers = [free("w", needs(), 1.0), free("x", needs(), 2.0)]
    assert pairs(decide([job(1)], workers)) == {1: "x"}


def test_the_only_copy_of_a_model_is_replaced_last_unless_it_is_old():
    recent = [free("w", needs("rare"), NOW - 60), free("x", needs("b"), NOW - 30), free("y", needs("b"), NOW - 20)]
    assert pairs(decide([job(1)], recent)) == {1: "x"}
    assert pairs(decide([job(1)], [free("w", needs("rare"), NOW - 9_000), *recent[1:]])) == {1: "w"}


# --- the user's order ---------------------------------------------------------------------------------------------------


def test_jobs_of_one_model_run_in_the_order_of_the_user():
    jobs = [job(1, position=5), job(2, position=-3, created=NOW + 1), job(3, position=4)]
    assert pairs(decide(jobs, [free("w", needs())])) == {2: "w"}
    assert decide(jobs, [free("w", needs())]) == decide(reversed(jobs), [free("w", needs())])


def test_of_two_jobs_at_one_place_the_older_id_is_next():
    assert pairs(decide([job(9, position=1), job(4, position=1)], [free("w")])) == {4: "w"}


def test_between_models_the_order_of_the_user_decides_where_no_weights_do():
    jobs = [job(1, needs("b"), 2), job(2, needs("c"), 1)]
    assert pairs(decide(jobs, [free("w")])) == {2: "w"}


def test_no_job_is_overtaken_more_often_than_the_rules_allow():
    jobs = [job(1, needs("b")), *(job(id) for id in range(2, 20))]
    worker = free("w", needs("a"))
    begun = []
    while jobs[0].id == 1:
        (assignment,) = decide(jobs, [worker], overtakes=4).assignments
        begun.append(assignment.job)
        jobs = [other for other in jobs if other.id != assignment.job]
    assert begun == [2, 3, 4, 5, 1]


def test_a_job_is_not_overtaken_by_one_that_came_much_later():
    jobs = [job(1, needs("b", load=1.0), created=NOW - 100), job(2, created=NOW - 30)]
    assert pairs(decide(jobs, [free("w", needs())], newer_seconds=80.0)) == {2: "w"}
    assert pairs(decide(jobs, [free("w", needs())], newer_seconds=60.0)) == {1: "w"}
    slow = [replace(jobs[0], needs=needs("b", load=60.0)), jobs[1]]
    assert pairs(decide(slow, [free("w", needs())], newer_seconds=60.0, newer_loads=5.0)) == {2: "w"}


def test_an_old_job_that_was_moved_to_the_end_changes_nothing_for_those_before_it():
    jobs = [job(1, needs("b", load=1.0), created=NOW - 100), job(2, created=NOW - 30), job(3, created=NOW - 900)]
    assert pairs(decide(jobs, [free("w", needs())], newer_seconds=60.0)) == {1: "w"}


def test_a_job_that_was_moved_to_the_first_place_is_overtaken_once_at_most():
    waiting = [job(id, created=NOW - 50 + id / 10) for id in range(1, 41)]
    moved = job(50, needs("b"), position=0, created=NOW)
    worker = free("w", needs("a"))
    assert pairs(decide([moved, *waiting], [worker])) == {1: "w"}
    assert pairs(decide([moved, *waiting[1:]], [worker])) == {50: "w"}


def test_a_better_match_follows_once_the_job_that_was_overtaken_too_often_has_begun():
    jobs = [job(1, needs("b")), job(90, needs("a"))]
    workers = [free("w", needs("a")), free("x", needs("c"))]
    assert pairs(decide(jobs, workers, overtakes=4)) == {1: "x", 90: "w"}
    assert pairs(decide(jobs, workers[:1], overtakes=4)) == {1: "w"}


# --- waiting for a busy worker ------------------------------------------------------------------------------------------


def test_a_job_waits_for_its_weights_where_that_is_cheaper_than_loading():
    workers = [busy("cuda:0", left=40), free("cuda:1", needs("b", components="", family="b"))]
    decision = decide([job(1)], workers)
    assert decision.waits == {1: "waits for cuda:0, which holds its weights and is free in about 40 s"}
    assert pairs(decide([job(1)], [busy("cuda:0", left=200), workers[1]])) == {1: "cuda:1"}


def test_an_empty_worker_costs_only_the_load():
    assert pairs(decide([job(1)], [busy("w", left=70), free("x")])) == {1: "x"}
    assert pairs(decide([job(1)], [busy("w", left=50), free("x")])) == {}


def test_a_worker_that_has_been_idle_for_long_is_used_sooner():
    assert pairs(decide([job(1)], [busy("w", left=50), free("x", last_used=NOW - 290)])) == {}
    assert pairs(decide([job(1)], [busy("w", left=50), free("x", last_used=NOW - 310)])) == {1: "x"}
    assert pairs(decide([job(1)], [busy("w", left=25), free("x", last_used=NOW - 310)])) == {}


def test_only_loras_are_changed_rather_than_waited_for():
    workers = [busy("w", needs("a", "x", file="base"), left=40), free("x", needs("a", "y", file="base"))]
    assert pairs(decide([job(1, needs("a", "x", file="base"))], workers)) == {1: "x"}


def test_an_unknown_end_is_not_waited_for_nor_one_that_is_late():
    for left in (None, -200):
        assert pairs(decide([job(1)], [busy("w", left=left), free("x")])) == {1: "x"}


def test_an_unknown_time_of_loading_counts_as_usual():
    jobs = [job(1, needs(load=None))]
    assert pairs(decide(jobs, [busy("w", left=20), free("x")], unknown_load_seconds=30.0)) == {}
    assert pairs(decide(jobs, [busy("w", left=20), free("x")], unknown_load_seconds=10.0)) == {1: "x"}


def test_a_model_with_a_long_queue_is_loaded_on_more_workers():
    workers = [busy("w", left=40), free("x"), free("y"), free("z")]
    assert pairs(decide([job(1)], workers)) == {}
    assert pairs(decide([job(id) for id in range(1, 4)], workers)) == {1: "x", 2: "y"}


def test_an_old_job_does_not_leave_a_worker_idle():
    workers = [busy("w", left=40), free("x")]
    assert pairs(decide([job(1, created=NOW - 500)], workers)) == {1: "x"}
    assert pairs(decide([job(1, created=NOW - 500)], workers, hold_seconds=600.0)) == {}


def test_a_draining_worker_is_not_waited_for():
    assert pairs(decide([job(1)], [busy("w", left=10, draining=True), free("x")])) == {1: "x"}


# --- memory, draining, reasons ------------------------------------------------------------------------------------------


def test_a_job_goes_where_it_fits():
    jobs = [job(1, needs(size=31 * GB)), job(2, needs(size=20 * GB)), job(3, needs(size=20 * GB))]
    decision = decide(jobs, [free("small"), free("large", capacity=80 * GB)])
    assert pairs(decision) == {1: "large", 2: "small"}
    assert decision.waits[3].startswith("waits for ")
    assert pairs(decide(jobs[:1], [free("any", capacity=None)])) == {1: "any"}


def test_a_job_that_fits_nowhere_says_so_and_holds_up_no_other():
    jobs = [job(1, needs(size=31 * GB), created=NOW - 9_000), *(job(id) for id in range(2, 500))]
    decision = decide([jobs[0], jobs[-1]], [free("w")])
    assert pairs(decision) == {499: "w"}
    assert decision.waits == {1: "needs 31.00 GB; no worker has more than 24.00 GB"}


def test_without_workers_all_jobs_say_so():
    assert decide([job(1)], []).waits == {1: "waits for a worker; there is none at the moment"}
    drained = "waits for a worker; those that could run it get no more jobs, because they are being drained"
    assert decide([job(1)], [free("w", draining=True)]).waits == {1: drained}
    assert decide([job(1, needs(size=31 * GB))], [free("w"), free("x", capacity=80 * GB, draining=True)]).waits == {
        1: drained
    }


def test_jobs_behind_others_say_how_many_are_before_them():
    workers = [busy("w", left=20), busy("x", needs("b"), left=90)]
    decision = decide([job(1), job(2), job(3), job(4, needs("c"))], workers)
    assert decision.waits == {
        1: "waits for w, which holds its weights and is free in about 20 s",
        2: "waits for w, which holds its weights and is free in about 20 s, after 1 other job with the same weights",
        3: "waits for w, which holds its weights and is free in about 20 s, after 2 other jobs with the same weights",
        4: "waits for a free worker, expected in about 20 s; 3 jobs wait before it",
    }


def test_the_worker_that_begins_now_is_the_one_that_the_next_jobs_wait_for():
    decision = decide([job(1), job(2), job(3)], [free("w")])
    assert decision.waits == {
        2: "waits for w, which holds its weights",
        3: "waits for w, which holds its weights, after 1 other job with the same weights",
    }


def test_workers_of_several_machines_with_one_device_are_called_by_their_names():
    workers = [replace(free(name), device="cuda:0") for name in ("one/cuda:0", "two/cuda:0")]
    assert decide([job(1)], workers).assignments[0].reason == "runs on one/cuda:0, which holds no weights yet"


def test_nothing_waits_and_nothing_is_assigned_where_there_are_no_jobs():
    decision = decide([], [free("w")])
    assert decision.assignments == ()
    assert decision.waits == {}


# --- random situations --------------------------------------------------------------------------------------------------


def some_needs(chance):
    model = chance.choice("aaabbc")
    loras = chance.choice([(), (), ("x",), ("y",)])
    file = chance.choice(["base", "base", model, model + "2"])
    family = "wan" if model != "c" else "other"
    components = chance.choice([family, family, ""])
    size, load = chance.choice([8, 8, 20, 31, 90]) * GB, chance.choice([None, 0.5, 20.0, 300.0])
    return needs(model, *loras, file=file, family=family, components=components, size=size, load=load)


def some_worker(chance, name):
    capacity = chance.choice([12 * GB, 24 * GB, 24 * GB, 48 * GB, None])
    holds = some_needs(chance) if chance.random() < 0.8 else None
    draining, used = chance.random() < 0.1, NOW - chance.choice([1.0, 10.0, 100.0, 8_000.0])
    if chance.random() < 0.6:
        return free(name, holds, used, capacity, draining)
    return busy(name, holds or some_needs(chance), chance.choice([None, -50, 1, 30, 400]), used, capacity, draining)


def some_situation(chance):
    positions = chance.sample(range(-20, 60), chance.randrange(0, 14))
    created = [NOW - chance.choice([0.0, 5.0, 70.0, 200.0, 2_000.0]) for _ in positions]
    jobs = [job(id, some_needs(chance), place, created[id]) for id, place in enumerate(positions)]
    workers = [some_worker(chance, f"w{number}") for number in range(chance.randrange(0, 8))]
    rules = Rules(overtakes=chance.choice([1, 3, 24]), newer_seconds=chance.choice([10.0, 100.0]), newer_loads=1.0)
    return jobs, workers, rules


def fits(what, worker):
    return worker.capacity_bytes is None or what.needs.bytes_needed <= worker.capacity_bytes


def check_workers(assigned, workers):
    """No two jobs on a worker, no job twice, none on a worker that is busy, drained or too small."""
    assert len({worker.name for _, worker in assigned}) == len(assigned)
    assert len({job.id for job, _ in assigned}) == len(assigned)
    for job, worker in assigned:
        assert worker.free
        assert not worker.draining
        assert fits(job, worker)


def check_order(assigned, left, workers, rules):
    """On each worker, jobs of a model are taken in order, and no job is overtaken too often or by one too new."""
    usable = [worker for worker in workers if not worker.draining]
    for (begun, worker), other in itertools.product(assigned, left):
        if fits(other, worker) and other.position < begun.position:
            assert other.needs.model != begun.needs.model
            most = rules.overtakes * sum(fits(other, other_worker) for other_worker in usable)
            assert begun.position - other.position <= most
            load = rules.unknown_load_seconds if other.needs.load_seconds is None else other.needs.load_seconds
            assert begun.created - other.created <= max(rules.newer_seconds, rules.newer_loads * load)


def check_no_worker_is_idle_for_nothing(assigned, left, workers, rules):
    """A worker stays free only where jobs that aren't old wait for a busy worker with their weights."""
    taken = {worker.name for _, worker in assigned}
    for worker in workers:
        if worker.free and not worker.draining and worker.name not in taken:
            for other in left:
                if fits(other, worker):
                    assert NOW - other.created <= rules.hold_seconds
                    assert any(
                        not holder.free and not holder.draining and holder.holds.model == other.needs.model
                        for holder in workers
                    )


@pytest.mark.parametrize("seed", range(20))
def test_random_situations_keep_all_rules(seed):
    chance = random.Random(seed)
    kinds = Counter()
    for _ in range(500):
        jobs, workers, rules = some_situation(chance)
        decision = schedule(jobs, workers, NOW, rules)
        by_id, by_name = {job.id: job for job in jobs}, {worker.name: worker for worker in workers}
        assigned = [(by_id[made.job], by_name[made.worker]) for made in decision.assignments]
        left = [job for job in jobs if job.id not in {begun.id for begun, _ in assigned}]
        check_workers(assigned, workers)
        check_order(assigned, left, workers, rules)
        check_no_worker_is_idle_for_nothing(assigned, left, workers, rules)
        assert set(decision.waits) == {job.id for job in left}
        assert all(reason.startswith(("waits for ", "needs ")) for reason in decision.waits.values())
        assert all(made.reason.startswith("runs on ") for made in decision.assignments)
        shuffled = chance.sample(jobs, len(jobs)), chance.sample(workers, len(workers))
        again = schedule(*shuffled, NOW, rules)
        assert again == decision
        assert assign(*shuffled, NOW, rules) == decision.assignments
        kinds["assigned"] += len(assigned)
        kinds["left"] += len(left)
    assert min(kinds.values()) > 100  # the situations are of all kinds


# --- sequences: nothing starves -----------------------------------------------------------------------------------------


class Sequence:
    """Random jobs on random workers whose estimates are wrong. `work`: seconds of the jobs ahead of each new job."""

    def __init__(self, seed, rules):
        self.chance = random.Random(seed)
        self.rules, self.now = rules, NOW
        self.workers = {f"w{number}": self.worker(f"w{number}") for number in range(self.chance.randrange(1, 5))}
        self.workers["w0"] = replace(self.workers["w0"], capacity_bytes=48 * GB)
        self.waiting, self.ends, self.overtaken, self.waits, self.bounds = {}, {}, Counter(), {}, {}
        self.together = self.chance.random() < 0.3  # whether all jobs come at once
        self.longest = 100.0

    def worker(self, name):
        return replace(free(name), capacity_bytes=self.chance.choice([24, 48]) * GB)

    def add(self, id):
        what = needs(self.chance.choice("aaaaabbc"), size=self.chance.choice([10, 10, 10, 40]) * GB, load=30.0)
        self.waiting[id] = new = job(id, what, created=self.now)
        workers = sum(fits(new, worker) for worker in self.workers.values())
        most = len(self.waiting) + self.rules.overtakes * workers  # jobs that may begin before it where it could
        self.bounds[id] = self.rules.hold_seconds + self.longest * (most / workers + 1)

    def step(self):
        estimates = {
            n: w if w.free else replace(w, busy_until=self.now + 5) for n, w in self.workers.items()
        }  # always too early
        for made in assign(self.waiting.values(), estimates.values(), self.now, self.rules):
            begun, worker = self.waiting.pop(made.job), self.workers[made.worker]
            for other in self.waiting.values():
                if other.position < begun.position and fits(other, worker):
                    self.overtaken[other.id] += 1
            self.waits[begun.id] = self.now - begun.created
            self.ends[made.worker] = self.now + self.chance.uniform(1, self.longest)
            self.workers[made.worker] = replace(worker, free=False, holds=begun.needs, last_used=self.now)

    def run(self, count):
        coming = list(range(count))
        arrives = self.now
        while coming or self.waiting:
            while coming and (self.together or arrives <= self.now):
                self.add(coming.pop(0))
                arrives += self.chance.expovariate(len(self.workers) / 55)
            self.step()
            idle = self.waiting and len(self.ends) < len(self.workers)
            times = [*self.ends.values(), *([arrives] if coming else []), *([self.now + 1] if idle else [])]
            self.now = min(times, default=self.now)
            for name in [name for name, end in self.ends.items() if end <= self.now]:
                del self.ends[name]
                self.workers[name] = replace(self.workers[name], free=True, last_used=self.now)


@pytest.mark.parametrize("seed", range(40))
def test_no_job_waits_beyond_the_bound_whatever_the_estimates_say(seed):
    rules = Rules(overtakes=random.Random(seed).choice([1, 3, 8]), hold_seconds=120.0)
    sequence = Sequence(seed, rules)
    sequence.run(120)
    assert len(sequence.waits) == 120
    assert all(wait <= sequence.bounds[id] for id, wait in sequence.waits.items())
    assert max(sequence.overtaken.values(), default=0) <= rules.overtakes * len(sequence.workers)


def test_a_decision_among_ten_thousand_jobs_and_a_thousand_workers_is_quick():
    chance = random.Random(1)
    models = [needs(f"m{number}") for number in range(300)]
    jobs = [job(id, chance.choice(models), created=NOW - 9_000 + id / 10) for id in range(10_000)]
    workers = [busy(f"w{number}", chance.choice(models), chance.uniform(1, 99)) for number in range(999)]
    began = time.process_time()
    decision = schedule(jobs, [*workers, free("w", models[0])], NOW)
    seconds = time.process_time() - began
    assert len(decision.assignments) == 1
    assert seconds < 2.0  # about 0.1 on an idle core
