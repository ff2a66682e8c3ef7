"""Which job a worker runs next."""

from reeltune.jobs.choose import FreeWorker, WaitingJob, choose_job

WORKER = FreeWorker("a", frozenset({"ckpts/x.safetensors"}))


def waiting(id, position, created=0.0):
    return WaitingJob(id, "m", position, created)


def test_the_first_in_the_order_of_the_user_is_next_however_they_are_listed():
    jobs = [waiting(1, 7), waiting(2, -3, created=9.0), waiting(3, 5)]
    assert choose_job(jobs, WORKER) == jobs[1]
    assert choose_job(reversed(jobs), WORKER) == jobs[1]


def test_of_two_at_one_place_the_older_is_next():
    assert choose_job([waiting(9, 1), waiting(4, 1)], WORKER).id == 4


def test_no_job_is_next_where_none_waits():
    assert choose_job([], WORKER) is None


def test_any_worker_gets_the_same_job():
    jobs = [waiting(1, 2), waiting(2, 1)]
    assert choose_job(jobs, WORKER) == choose_job(jobs, FreeWorker("another"))
