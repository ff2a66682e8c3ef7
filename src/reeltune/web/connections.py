"""The HTTP server under the page: its port, a bounded number of connections, a log that no stranger can flood."""

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

FIRST_PORT, LAST_PORT = 7860, 7959  # tried one after the other where no port is given
START_SECONDS = 60
_CONNECTIONS = 512  # open at once; a browser's tab takes up to eight
_BACKLOG = 64  # connections that the system accepts ahead; asyncio takes as many in one go
_FILES = 4096  # files and connections this process may have open, where the system's limit is lower
_SILENT_SECONDS = 10.0  # until a connection that sends no request is closed
_REPEAT_SECONDS = 60.0
_CLOSING_SECONDS = 3
_MOST_REMEMBERED = 1000


class Repeats(logging.Filter):
    """Lets each message through once a minute, so that a flood of bad requests doesn't fill the disk with log lines."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str, str], float] = {}
        self._guard = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; equal are messages with one first line and one exception."""
        failure = record.exc_info[0] if record.exc_info else None
        key = (record.name, str(record.msg).partition("\n")[0], getattr(failure, "__name__", ""))
        now = time.monotonic()
        with self._guard:
            if now - self._last.get(key, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
                return False
            if len(self._last) >= _MOST_REMEMBERED:
                self._last.clear()
            self._last[key] = now
        return True


class Connections:
    """The open connections of a server, at most `limit`. A new one closes the one that has been silent the longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()
        self._silent: dict[Connection, None] = {}  # in the order in which they fell silent

    def opened(self, connection: Connection) -> bool:
        """Count a new connection; False where all others are at work and it must be closed."""
        if len(self._open) >= self._limit:
            silent = next(iter(self._silent), None)
            if silent is None:
                return False
            silent.drop()
        self._open.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._silent.pop(connection, None)

    def waits(self, connection: Connection, silent: bool) -> None:
        """Note whether a request is awaited from a connection."""
        if silent:
            self._silent.setdefault(connection)
        else:
            self._silent.pop(connection, None)


class Connection(H11Protocol):
    """One connection: closed when no whole request head arrives in time."""

    def __init__(self, *args: Any, shared: Connections, **more: Any) -> None:
        super().__init__(*args, **more)
        self._shared = shared
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it at once."""
        super().connection_made(transport)
        if self._shared.opened(self):
            self._await_request()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by either side."""
        self._stop_waiting()
        self._shared.closed(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close it at once."""
        self._stop_waiting()
        self._shared.closed(self)
        self.transport.abort()

    def _await_request(self) -> None:
        self._shared.waits(self, True)
        self._deadline = self.loop.call_later(_SILENT_SECONDS, self.drop)

    def _stop_waiting(self) -> None:
        self._shared.waits(self, False)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket: of the port, or of the first free one from 7860. Raises ServeError."""
    for candidate in range(FIRST_PORT, LAST_PORT + 1) if port is None else (port,):
        try:
            return _bound(host, candidate)
        except OSError as error:
            if port is None and error.errno == errno.EADDRINUSE:
                continue
            raise _refused(host, candidate, error) from error
    message = f"All ports from {FIRST_PORT} to {LAST_PORT} are in use."
    raise ServeError(message, hint="Choose another with --port.")


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # right after the last page on it has ended
        opened.bind(address)
        opened.listen(_BACKLOG)  # now, so that another program that wants the port fails now
    except OSError:
        opened.close()
        raise
    return opened


def _refused(host: str, port: int, error: OSError) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        message = f"Port {port} of {host} is already in use, perhaps by another page of this program."
        return ServeError(message, hint="Choose another with --port, or leave it out to take the first free one.")
    if error.errno == errno.EACCES:
        return ServeError(f"Port {port} needs administrator rights.", hint="Choose one from 1024 with --port.")
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        message = f"{host} is not an address of this machine."
        return ServeError(
            message, hint="--host takes 127.0.0.1 (this machine only), 0.0.0.0 (all networks) or one address."
        )
    message = f"The page can't listen on {host}, port {port}: {error.strerror or error}."
    return ServeError(message, hint="Choose another with --host and --port.")


class WebServer:
    """Serves an ASGI application on a listening socket, in a thread of its own."""

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
            proxy_headers=False,  # whoever connects could name any address as theirs
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        repeats = Repeats()
        for name in ("uvicorn.error", "asyncio", "reeltune.page"):
            logging.getLogger(name).addFilter(repeats)
        self._socket = listening
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="reeltune-page", daemon=True)

    def start(self) -> None:
        """Begin to answer. Raises ServeError where the application doesn't start."""
        self._thread.start()
        end = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ServeError("The page's server didn't start.", hint="The lines above have the reason.")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop listening and end the thread."""
        self._server.should_exit = True
        self._thread.join(_CLOSING_SECONDS + 2)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _raise_file_limit() -> int:
    """Let this process open enough files and connections; returns how many it may."""
    if sys.platform == "win32":
        return _FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _FILES if soft == resource.RLIM_INFINITY else soft
