"""Names and passwords: the file with them, the sessions of users who are logged in, and delays after wrong ones."""

from __future__ import annotations

import asyncio
import hmac
import html
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qs

from reeltune.errors import FileError, ServeError
from reeltune.files import read_bytes
from reeltune.server.keys import Keys, warnings_about

MAX_FORM_BYTES = 10_000
_MAX_FILE_BYTES = 1_000_000
_MAX_ADDRESSES = 1000  # whose wrong attempts are remembered
_MAX_ATTEMPTS = 4  # of one address at the same time
_MAX_SESSIONS = 10_000
_SESSION_SECONDS = 30 * 24 * 3600.0
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0  # seconds that a wrong password delays the next attempt
_FORGET_SECONDS = 600.0


def read_passwords(path: Path) -> tuple[dict[str, str], list[str]]:
    """Passwords by name from a file with one `name:password` per line, and warnings. Raises ServeError."""
    try:
        text = read_bytes(path, _MAX_FILE_BYTES).decode("utf-8-sig")
    except FileError as error:
        hint = "Use a regular file with one name:password per line."
        raise ServeError(f"--auth-file: {error.message}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise ServeError(f"--auth-file: {path} is not UTF-8 text.", hint="Save it as UTF-8.") from error
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    if not pairs or not all(name and password for name, _, password in pairs):
        message = f"{path} must have one name:password per line."
        raise ServeError(message, hint="At least one line is needed; names and passwords must not be empty.")
    return {name: password for name, _, password in pairs}, warnings_about(path)


def login_page(message: str = "") -> bytes:
    """The login page, with an error message."""
    page = (Path(str(resources.files("reeltune.server"))) / "login.html").read_text(encoding="utf-8")
    alert = f'<div role="alert">{html.escape(message)}</div>' if message else ""
    return page.replace("<!--message-->", alert).encode("utf-8")


@dataclass
class _Attempts:
    """Login attempts from one address, checked one at a time. `last`: time of the last wrong one."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    wrong: int = 0
    last: float = 0.0


class Login:
    """The users who may use the page, and their sessions.

    Without `passwords`, users log in with one of the API's `keys` as the password, and any name. Without both, no login
    is needed.
    """

    def __init__(self, passwords: Mapping[str, str], keys: Keys | None = None) -> None:
        self._passwords = dict(passwords)
        self._keys = keys or Keys(())
        self._cookie = f"reeltune-{secrets.token_hex(4)}"  # a browser sends the cookies of all ports of a host
        self._sessions: OrderedDict[str, float] = OrderedDict()  # end time by token
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()

    @property
    def needed(self) -> bool:
        """Whether users must log in."""
        return bool(self._passwords) or self._keys.needed

    def is_logged_in(self, cookies: str) -> bool:
        """Whether the cookies of a request belong to a session."""
        token = self._token(cookies)
        return self._sessions.get(token, 0.0) > time.time()

    def _token(self, cookies: str) -> str:
        try:
            cookie = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return ""
        return cookie.value if cookie is not None else ""

    def busy(self, address: str) -> bool:
        """Whether an address has too many attempts at the same time."""
        return self._of(address).waiting >= _MAX_ATTEMPTS

    async def attempt(self, body: bytes, address: str) -> str:
        """Check the name and password of a form; returns the token of a new session, or after a delay an empty text."""
        attempts = self._of(address)
        attempts.waiting += 1
        try:
            async with attempts.lock:
                if self._is_correct(body):
                    attempts.wrong = 0
                    return self._begin()
                if time.monotonic() - attempts.last > _FORGET_SECONDS:
                    attempts.wrong = 0
                delay = min(_FIRST_DELAY * 2**attempts.wrong, _LONGEST_DELAY)
                attempts.wrong, attempts.last = min(attempts.wrong + 1, 10), time.monotonic()
                await asyncio.sleep(delay)
                return ""
        finally:
            attempts.waiting -= 1

    def _of(self, address: str) -> _Attempts:
        network = _network(address)
        attempts = self._attempts.setdefault(network, _Attempts())
        self._attempts.move_to_end(network)
        if len(self._attempts) > _MAX_ADDRESSES:
            idle = (key for key, others in self._attempts.items() if not others.waiting and key != network)
            oldest = next(idle, None)
            if oldest is not None:
                del self._attempts[oldest]
        return attempts

    def _is_correct(self, body: bytes) -> bool:
        try:
            fields = parse_qs(body.decode("utf-8"), max_num_fields=20)
        except ValueError:
            return False
        name, password = fields.get("username", [""])[0].strip(), fields.get("password", [""])[0]
        if not self._passwords:
            return self._keys.contain(password)
        correct_password = self._passwords.get(name, "")
        same = hmac.compare_digest(correct_password.encode("utf-8"), password.encode("utf-8"))
        return same and bool(correct_password)

    def _begin(self) -> str:
        token = secrets.token_urlsafe(24)
        self._sessions[token] = time.time() + _SESSION_SECONDS
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def end(self, cookies: str) -> None:
        """End the session of a request."""
        self._sessions.pop(self._token(cookies), None)

    def cookie(self, token: str, *, secure: bool) -> str:
        """The value of the header that sets a session's cookie; an empty token deletes the cookie."""
        age = int(_SESSION_SECONDS) if token else 0
        flags = "; Secure" if secure else ""
        return f"{self._cookie}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{flags}"


def _network(address: str) -> str:
    """The address itself, or the network of an IPv6 address, since each user has many of those."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
