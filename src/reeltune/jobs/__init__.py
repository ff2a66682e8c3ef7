"""Jobs: a durable queue, the runner that hands its jobs to workers, and the process in which a worker makes the videos.
Only `worker`, in that process, reaches the engine.
"""

from __future__ import annotations

from reeltune.jobs.job import Job, State
from reeltune.jobs.live import Live
from reeltune.jobs.queue import Queue
from reeltune.jobs.runner import Runner

__all__ = ["Job", "Live", "Queue", "Runner", "State"]
