"""Runs the functions of a module in a network namespace of their own, where a Ray cluster finds nothing but loopback.

Ray takes the machine's outward address for its nodes, even where 127.0.0.1 is asked for, and opens ports on it. In the
namespace there is none, so that it uses 127.0.0.1, and nobody else reaches it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
_BRING_UP = 'ip link set lo up && exec "$@"'


@functools.cache
def obstacle() -> str:
    """Why no cluster can be started here; empty if it can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed (pip install 'reeltune[ray]'): nothing of a cluster was tested"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "no network namespace (ip and unshare of Linux): nothing of a cluster was tested"
    tried = subprocess.run([*_command(), "true"], capture_output=True, text=True, check=False)
    return f"no network namespace ({tried.stderr.strip()}): nothing of a cluster was tested" if tried.returncode else ""


def _command() -> list[str]:
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own, "--net", "sh", "-c", _BRING_UP, "sh"]


def run_in_namespace(module: str, function: str, folder: Path, seconds: float) -> str:
    """Run `module.function(folder)` of the tests there, and return what it prints; an exception fails the test."""
    if reason := obstacle():
        pytest.skip(reason)
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import {module}, pathlib; {module}.{function}(pathlib.Path({str(folder)!r}))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(TESTS.parents[1] / "src"), str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
        ),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "6",
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "5",
        "RAY_TMPDIR": "/tmp",  # of sockets, whose paths may have 107 characters
        "TMPDIR": str(folder),
    }
    result = subprocess.run(
        [*_command(), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env=environment,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-8000:]
    return result.stdout
