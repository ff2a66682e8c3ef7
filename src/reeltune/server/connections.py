"""The HTTP server: its port, a limited number of connections, and a log that can't be flooded."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import sys
import threading
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from reeltune.errors import ServeError

FIRST_PORT, LAST_PORT = 7860, 7959  # tried in this order if no port is chosen
START_SECONDS = 60
_CONNECTIONS = 512  # open at once; a browser's tab takes up to eight
_BACKLOG = 64  # connections that the system accepts ahead; asyncio takes as many in one go
_FILES = 4096  # files and connections that this process may open; the limit of the system is often lower
_SILENT_SECONDS = 10.0  # until a connection that sends no request is closed
_REPEAT_SECONDS = 60.0  # between equal lines of the log
_CLOSING_SECONDS = 3
_MAX_REMEMBERED = 1000
_LOGS = (  # that requests can fill
    "uvicorn.error",
    "asyncio",
    "reeltune.page",
    "reeltune.api",
    "python_multipart.multipart",
    "mcp.server.streamable_http",
    "mcp.server.streamable_http_manager",
    "mcp.server.transport_security",
    "mcp.server.runner",
)


class RepeatFilter(logging.Filter):
    """Logs equal messages once a minute, so that many bad requests can't fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str, str], float] = {}
        self._guard = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged. Messages are equal if their first lines and exception types are."""
        failure = record.exc_info[0] if record.exc_info else None
        key = (record.name, str(record.msg).partition("\n")[0], getattr(failure, "__name__", ""))
        now = time.monotonic()
        with self._guard:
            if now - self._last.get(key, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
                return False
            if len(self._last) >= _MAX_REMEMBERED:
                self._last.clear()
            self._last[key] = now
        return True


class Connections:
    """At most `limit` open connections. Above that, a new one closes the one that has been idle the longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the longest idle first

    def opened(self, connection: Connection) -> bool:
        """Add a connection; returns False if all others are busy, so that it must be closed."""
        if len(self._open) >= self._limit:
            longest_idle = next(iter(self._idle), None)
            if longest_idle is None:
                return False
            longest_idle.drop()
        self._open.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def set_idle(self, connection: Connection, idle: bool) -> None:
        """Note whether a connection waits for a request."""
        if idle:
            self._idle.setdefault(connection)
        else:
            self._idle.pop(connection, None)


class Connection(H11Protocol):
    """A connection that is closed when no complete request header arrives in time."""

    def __init__(self, *args: Any, shared: Connections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shared = shared
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or close it if there are too many."""
        super().connection_made(transport)
        if self._shared.opened(self):
            self._await_request()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process received bytes."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after either side has closed the connection."""
        self._stop_waiting()
        self._shared.closed(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection immediately."""
        self._stop_waiting()
        self._shared.closed(self)
        self.transport.abort()

    def _await_request(self) -> None:
        self._shared.set_idle(self, True)
        self._deadline = self.loop.call_later(_SILENT_SECONDS, self.drop)

    def _stop_waiting(self) -> None:
        self._shared.set_idle(self, False)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens on a port; without one, on the first free port from 7860. Raises ServeError."""
    for candidate in range(FIRST_PORT, LAST_PORT + 1) if port is None else (port,):
        try:
            return _bound(host, candidate)
        except OSError as error:
            if port is None and error.errno == errno.EADDRINUSE:
                continue
            raise _refused(host, candidate, error) from error
    message = f"All ports from {FIRST_PORT} to {LAST_PORT} are in use."
    raise ServeError(message, hint="Choose another port with --port.")


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # usable right after it was closed
        opened.bind(address)
        opened.listen(_BACKLOG)  # so that another program that tries this port fails immediately
    except OSError:
        opened.close()
        raise
    return opened


def _refused(host: str, port: int, error: OSError) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        message = f"Port {port} of {host} is already in use, perhaps by another server of this program."
        return ServeError(message, hint="Choose another port with --port, or omit it to use the first free one.")
    if error.errno == errno.EACCES:
        return ServeError(f"Port {port} needs administrator rights.", hint="Choose a port above 1023 with --port.")
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        message = f"{host} is not an address of this machine."
        return ServeError(
            message, hint="Use 127.0.0.1 (this machine only), 0.0.0.0 (all networks) or an address of this machine."
        )
    message = f"The server can't listen on {host}, port {port}: {error.strerror or error}."
    return ServeError(message, hint="Choose others with --host and --port.")


class WebServer:
    """Serves an ASGI application on a listening socket in a separate thread."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        allowed = _raise_file_limit()
        shared = Connections(min(_CONNECTIONS, max(16, allowed // 2)))
        config = uvicorn.Config(
            app,
            http=functools.partial(Connection, shared=shared),  # type: ignore[arg-type]
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # any client could send a false address
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        repeat_filter = RepeatFilter()
        for name in _LOGS:
            logging.getLogger(name).addFilter(repeat_filter)
        self._socket = listening
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="reeltune-page", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until it answers requests. Raises ServeError."""
        self._thread.start()
        end = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ServeError("The server did not start.", hint="The lines above show the reason.")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the thread and close the socket."""
        self._server.should_exit = True
        self._thread.join(_CLOSING_SECONDS + 2)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _raise_file_limit() -> int:
    """Raise the limit of open files and connections if necessary; returns the limit."""
    if sys.platform == "win32":
        return _FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _FILES if soft == resource.RLIM_INFINITY else soft
