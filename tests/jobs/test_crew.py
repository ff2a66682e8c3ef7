"""The registry of the workers: what each holds, which job it gets, when it ends, and why a job waits."""

import json
import threading
from dataclasses import replace

import pytest
from fake_worker import PREPARE, FakeWorker, runners, succeed, until

from reeltune.errors import WorkerDied
from reeltune.events import FilesUsed, UsedFile
from reeltune.jobs import Queue, State
from reeltune.jobs.crew import Crew
from reeltune.jobs.handle import WorkerPlace
from reeltune.jobs.job import WaitingJob
from reeltune.jobs.messages import Done, Failed
from reeltune.jobs.needs import NeedsCache, nothing_known
from reeltune.jobs.schedule_values import JobNeeds
from reeltune.preferences import Preferences, save_preferences

GB = 2**30
COPY = {"name": "Copy", "architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": "reeltune/nano"}
USING = FilesUsed((UsedFile("x.safetensors", 5),))


class Known(NeedsCache):
    """Needs without plans: `sizes` by definition."""

    def __init__(self, **sizes):
        self.sizes = sizes

    def prepare(self, waiting):
        pass

    def loaded(self, definition, seconds):
        self.sizes = self.sizes | {"loaded": (definition, seconds)}

    def of(self, job):
        files = frozenset({f"{job.definition}.safetensors"})
        size = self.sizes.get(job.definition, 0)
        return JobNeeds(job.definition, job.loras or (), files, frozenset(), "wan", size, 10.0)


def waiting(id, definition, position=None, loras=None):
    return WaitingJob(id, definition, loras, position if position is not None else id, 0.0)


def crew_of(*workers, **sizes):
    return Crew(workers or [FakeWorker(name="a"), FakeWorker(name="b")], Known(**sizes))


def take(crew, name, jobs):
    """What a worker would begin, as its thread asks."""
    with crew.turn(name):
        return crew.choose(name, jobs)


def test_one_worker_runs_all_jobs_in_the_order_of_the_user():
    crew = crew_of(FakeWorker(name="a"))
    jobs = [waiting(1, "m"), waiting(2, "n")]
    assert take(crew, "a", jobs) == 1
    assert take(crew, "a", []) is None
    crew.drain("a")
    assert take(crew, "a", jobs) is None
    crew.resume("a")
    assert take(crew, "a", jobs) == 1


def test_a_job_goes_to_the_worker_that_holds_its_weights(root):
    crew, queue = crew_of(), Queue(root)
    for name, definition in (("a", "m"), ("b", "n")):
        queue.add(definition, {})
        job = queue.take(name, 60)
        crew.begin(name, job)
        crew.end(name, job.id, loaded=True, completed=True)
    jobs = [waiting(11, "n"), waiting(12, "m")]
    with crew.turn("b"):  # both are free
        pass
    assert take(crew, "a", jobs) == 12
    assert take(crew, "b", jobs) == 11


def test_a_job_is_not_given_to_a_worker_that_is_too_small():
    small, large = FakeWorker(name="small"), FakeWorker(name="large")
    small.place = WorkerPlace("cuda:0", "here", 8 * GB)
    large.place = WorkerPlace("cuda:1", "here", 24 * GB)
    crew = crew_of(small, large, big=20 * GB, huge=90 * GB)
    assert take(crew, "small", [waiting(1, "big"), waiting(2, "little")]) == 2
    assert take(crew, "large", [waiting(1, "big"), waiting(2, "little")]) == 1
    assert take(crew, "small", [waiting(3, "huge")]) is None
    assert take(crew, "large", [waiting(3, "huge")]) == 3  # which reports why it fails


def test_what_a_worker_holds_follows_its_jobs(root):
    crew, queue = crew_of(FakeWorker(name="a")), Queue(root)

    def run(definition, **ending):
        queue.add(definition, {"activated_loras": ["x"]} if definition == "m" else {})
        job = queue.take("a", 60)
        crew.begin("a", job)
        assert (crew.member("a").job, crew.member("a").state) == (job.id, "busy")
        crew.end("a", job.id, **ending)
        return crew.member("a").holds

    assert run("m", loaded=True, completed=True).loras == ("x",)
    assert run("n", loaded=False, completed=False).definition == "m"  # it failed before it loaded anything
    assert run("n", loaded=True, completed=True).definition == "n"
    crew.empty("a")
    assert crew.member("a").holds is None
    crew.died("a", WorkerDied("It was killed."))
    crew.end("a", 1, loaded=True, completed=False)
    assert crew.member("a").problem == "It was killed."


def test_a_worker_that_died_during_a_job_holds_nothing(root):
    crew, queue = crew_of(FakeWorker(name="a")), Queue(root)
    job = queue.add("m", {})
    crew.begin("a", queue.take("a", 60))
    crew.died("a", WorkerDied("It was killed."))
    crew.end("a", job.id, loaded=True, completed=False)
    member = crew.member("a")
    assert (member.holds, member.job, member.problem, member.died) == (None, None, "It was killed.", False)


def test_states_in_one_word(root):
    crew, queue = crew_of(FakeWorker(name="a")), Queue(root)
    assert crew.member("a").state == "free"
    job = queue.add("m", {})
    crew.begin("a", queue.take("a", 60))
    crew.drain("a", end=True)
    assert (crew.member("a").state, crew.member("a").ending) == ("draining", True)
    crew.end("a", job.id, loaded=True, completed=True)
    assert crew.member("a").state == "drained"
    crew.resume("a")
    assert (crew.member("a").state, crew.member("a").ending) == ("free", False)


def test_workers_join_and_leave_and_one_that_is_busy_leaves_after_its_job(root):
    crew, queue = crew_of(FakeWorker(name="a")), Queue(root)
    crew.join(FakeWorker(name="b"))
    crew.leave("a")
    assert [member.name for member in crew.members()] == ["b"]
    job = queue.add("m", {})
    crew.begin("b", queue.take("b", 60))
    crew.leave("b")
    assert crew.member("b").state == "draining"
    crew.end("b", job.id, loaded=True, completed=True)
    assert crew.members() == []
    crew.leave("b")
    crew.drain("b")
    crew.empty("b")  # its thread may still report something
    assert crew.member("b") is None


# --- needs --------------------------------------------------------------------------------------------------------


def test_needs_come_from_the_plan_and_a_definition_without_one_needs_nothing_in_particular(root, define):
    define("copy", COPY)
    (root / "finetunes" / "broken.json").write_text("{", encoding="utf-8")
    cache = NeedsCache(root)
    jobs = [waiting(1, "nano_t2v"), waiting(2, "copy"), waiting(3, "missing"), waiting(4, "broken")]
    assert cache.of(jobs[0]) == nothing_known("nano_t2v", None)
    cache.prepare(jobs)
    first, second, missing, broken = map(cache.of, jobs)
    assert first.transformer_files
    assert first.transformer_files == second.transformer_files
    assert first.component_files == second.component_files
    assert (first.family, first.model == second.model) == ("wan", False)
    assert missing == nothing_known("missing", None)
    assert broken == nothing_known("broken", None)
    cache.loaded("copy", 5.0)
    cache.loaded("copy", 2.0)
    assert (cache.of(jobs[1]).load_seconds, cache.of(jobs[0]).load_seconds) == (5.0, None)


def test_plans_are_made_once_and_again_when_a_definition_has_changed(root, define, monkeypatch):
    import reeltune.jobs.needs as module

    made = []
    explain = module.explain
    monkeypatch.setattr(
        module, "explain", lambda *args, **options: made.append(args[0].id) or explain(*args, **options)
    )
    define("copy", COPY)
    cache = NeedsCache(root)
    for _ in range(3):
        cache.prepare([waiting(1, "copy"), waiting(2, "copy", loras=("no.safetensors",)), waiting(3, "copy")])
    assert made == ["copy", "copy"]
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    cache.prepare([waiting(1, "copy")])
    assert len(made) == 2
    define("copy", COPY | {"URLs": "nano_neon", "name": "Another"})
    cache.prepare([waiting(1, "copy")])
    assert len(made) == 3


# --- with a runner ------------------------------------------------------------------------------------------------


@pytest.fixture
def running(root, monkeypatch):
    with runners(root, monkeypatch) as start:
        yield start


def add(runner, *definitions):
    jobs = [{"definition": definition, "settings": {}} for definition in definitions]
    ids = [job.id for job in runner.queue.import_text(json.dumps({"jobs": jobs}))]
    runner.wake()
    return ids


def done(runner, ids):
    until(lambda: all(runner.queue.get(id).state is State.DONE for id in ids) and not runner._attempts())


def test_two_workers_share_models_so_that_each_is_loaded_once(running):
    both_begun = threading.Barrier(2, timeout=60)  # else one could make all videos before the other takes its first job

    def make(worker, task):
        if len(worker.tasks) == 1:
            both_begun.wait()
        worker.tell(PREPARE, USING, Done())

    workers = [FakeWorker(make, "a"), FakeWorker(make, "b")]
    runner, _ = running(workers=workers)
    ids = add(runner, *["m", "n"] * 10)
    done(runner, ids)
    changes = 0
    for worker in workers:
        models = [task.definition for task in worker.tasks]
        changes += sum(before != after for before, after in zip([None, *models], models, strict=False))
    assert changes <= 4  # first-in-first-out would change about twenty times


def test_a_worker_ends_after_the_idle_time_of_the_preferences(running, root, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.idle._KEPT_SECONDS", 0.0)
    save_preferences(root, Preferences(worker_idle_minutes=0))
    runner, worker = running(lambda worker, task: worker.tell(PREPARE, USING, Done()))
    done(runner, add(runner, "nano_t2v"))
    assert runner.crew.member("fake").holds is not None
    member = runner.crew.member("fake")
    runner.crew._members["fake"] = replace(member, since=member.since - 90)
    assert worker.releases == 0  # never
    save_preferences(root, Preferences(worker_idle_minutes=1))
    until(lambda: worker.releases == 1)
    until(lambda: runner.crew.member("fake").holds is None)
    done(runner, add(runner, "nano_t2v"))  # it is started again


def test_a_worker_that_dies_while_idle_is_shown_with_the_reason_and_started_again(running, caplog):
    runner, worker = running(succeed)
    done(runner, add(runner, "m"))
    worker.idle_death = WorkerDied("The worker process was killed.")
    until(lambda: runner.crew.member("fake").problem)
    assert runner.crew.member("fake").problem == "The worker process was killed."
    assert "ended while it was idle" in caplog.text
    done(runner, add(runner, "m"))


def test_a_drained_worker_finishes_its_job_and_gets_no_more(running):
    workers = [FakeWorker(lambda worker, task: worker.tell(PREPARE), name) for name in "ab"]
    runner, _ = running(workers=workers)
    first = add(runner, "m")
    until(lambda: any(worker.tasks for worker in workers))
    (busy,) = (worker for worker in workers if worker.tasks)
    (other,) = (worker for worker in workers if not worker.tasks)
    other.script = succeed
    runner.crew.drain(busy.name, end=True)
    later = add(runner, "m", "m")
    busy.tell(Done())
    done(runner, first + later)
    assert len(busy.tasks) == 1
    until(lambda: busy.releases == 1)
    runner.crew.drain(other.name)
    waits = add(runner, "m")
    reasons = runner.waits()
    assert "drained" in reasons[waits[0]]
    busy.script = succeed
    runner.crew.resume(busy.name)
    done(runner, waits)


def test_why_jobs_wait(running):
    workers = [FakeWorker(lambda worker, task: worker.tell(PREPARE, USING), name) for name in "ab"]
    runner, _ = running(workers=workers)
    add(runner, "m", "n")
    until(lambda: all(worker.tasks for worker in workers))
    ids = add(runner, "m", "o")
    reasons = runner.waits()
    assert reasons[ids[0]].startswith("waits for")
    assert "free worker" in reasons[ids[1]]
    runner.pause()
    assert runner.waits() == {}


def test_a_failed_job_leaves_its_worker_in_the_crew(running):
    runner, worker = running(lambda worker, task: worker.tell(PREPARE, Failed("No.")))
    (id,) = add(runner, "m")
    until(lambda: runner.queue.get(id).state is State.FAILED)
    worker.script = succeed
    done(runner, add(runner, "m"))
