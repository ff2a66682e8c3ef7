"""A file server for `download.py`, a process of its own: ranges, ETag, limits of speed, flipped bits, a count of bytes.

    python bench/fileserver.py FOLDER        prints its port, serves until its stdin closes

GET /NAME?total=MB&each=MB&flip=BIT: the file, at most `total` megabytes a second for all connections and `each` for one
connection, with one bit turned over. GET /-/sent: bytes of files written since the last such question.
"""

from __future__ import annotations

import http.server
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_CHUNK = 8 * 1024 * 1024  # a sendfile, where nothing is limited
_PACED = 64 * 1024
_CREDIT = 0.02  # seconds that a late sleeper may catch up


class Bucket:
    """A limit in bytes a second; 0 for none."""

    def __init__(self, rate: float) -> None:
        self._rate, self._lock, self._free_at = rate, threading.Lock(), 0.0

    def take(self, count: int) -> None:
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() - _CREDIT) + count / self._rate
            pause = self._free_at - time.monotonic()
        if pause > 0:
            time.sleep(pause)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.sent, self.busy = folder, 0, 0
        self.lock, self._buckets = threading.Lock(), dict[float, Bucket]()

    def handle_error(self, request: object, client_address: object) -> None:
        """Killed clients are what this is for."""

    def bucket(self, rate: float) -> Bucket:
        with self.lock:
            return self._buckets.setdefault(rate, Bucket(rate))

    def take_sent(self) -> int:
        """Bytes since the last question, once no answer is under way."""
        while self.busy:
            time.sleep(0.002)
        with self.lock:
            sent, self.sent = self.sent, 0
        return sent


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/-/sent":
            body = str(self.server.take_sent()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        with self.server.lock:
            self.server.busy += 1
        try:
            self._file(
                self.server.folder / Path(url.path).name, {k: float(v[0]) for k, v in parse_qs(url.query).items()}
            )
        except OSError:  # the client is gone
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _file(self, path: Path, wish: dict[str, float]) -> None:
        size = path.stat().st_size
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), min(int(asked[2] or size - 1), size - 1)) if asked else (0, size - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", f'"{path.name}-{size}"')
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        total, each = self.server.bucket(wish.get("total", 0) * 1e6), Bucket(wish.get("each", 0) * 1e6)
        if "total" in wish:  # what waits here to be sent is counted, but would not have left a real server
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _PACED)
        step = _PACED if "total" in wish or "each" in wish else _CHUNK
        turned = int(wish["flip"]) if "flip" in wish else None
        with path.open("rb", buffering=0) as file:
            position = first
            while position <= last:
                count = min(step, last + 1 - position)
                total.take(count)
                each.take(count)
                position += self._send(file.fileno(), position, count, turned)

    def _send(self, file: int, position: int, count: int, turned: int | None) -> int:
        if turned is not None and position <= turned // 8 < position + count:
            part = bytearray(os.pread(file, count, position))
            part[turned // 8 - position] ^= 1 << turned % 8
            self.connection.sendall(part)
            sent = count
        else:
            sent = os.sendfile(self.connection.fileno(), file, position, count)
        with self.server.lock:
            self.server.sent += sent
        return sent


def main() -> None:
    server = Server(Path(sys.argv[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
