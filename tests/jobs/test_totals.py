"""What jobs take is added up for all of them."""

from reeltune.events import Progress
from reeltune.jobs.job import Job, State
from reeltune.jobs.job_log import JobLog
from reeltune.jobs.live import Outcome
from reeltune.jobs.totals import Totals

JOB = Job(1, "any", {}, State.RUNNING, 1, 0.0)


def test_stages_downloads_and_ends_are_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("reeltune.jobs.job_log.time.monotonic", lambda: now[0])
    totals = Totals()
    for _ in range(2):
        log = JobLog(JOB, totals)
        for seconds, event in [
            (0, Progress("download", 500, 1000, "bytes", "a")),  # 500 bytes were there before
            (2, Progress("download", 800, 1000, "bytes", "a")),
            (1, Progress("download", 0, 50, "bytes", "b")),
            (1, Progress("download", 50, 50, "bytes", "b")),
            (1, Progress("denoise", 0, 2)),
            (4, Progress("denoise", 1, 2)),
        ]:
            now[0] += seconds
            log.event(event)
        log.ended(Outcome(JOB, State.DONE))
    log = JobLog(JOB, totals)
    log.ended(Outcome(JOB, State.FAILED))
    found = totals.now()
    assert found.seconds == {"download": 10.0, "denoise": 8.0}
    assert found.bytes_downloaded == 2 * 350
    assert found.ended == {State.DONE: 2, State.FAILED: 1}
