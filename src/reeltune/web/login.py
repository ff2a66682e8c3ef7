"""Names and passwords: the file they stand in, who is logged in, and what a wrong one costs."""

from __future__ import annotations

import asyncio
import hmac
import html
import ipaddress
import secrets
import stat
import sys
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

MOST_FORM_BYTES = 10_000
_MOST_FILE_BYTES = 1_000_000
_MOST_ADDRESSES = 1000  # whose wrong passwords are remembered
_MOST_WAITING = 4  # attempts of one address at a time
_MOST_SESSIONS = 10_000
_SESSION_SECONDS = 30 * 24 * 3600.0
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0  # seconds a wrong password holds up the next attempt
_FORGET_SECONDS = 600.0


def read_passwords(path: Path) -> tuple[dict[str, str], list[str]]:
    """Passwords by name, from a file with a `name:password` a line, and what to warn of. Raises ServeError."""
    try:
        text = read_bytes(path, _MOST_FILE_BYTES).decode("utf-8-sig")
    except FileError as error:
        hint = "Give a file with one name:password a line; pipes and devices aren't read."
        raise ServeError(f"--auth-file: {error.message}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise ServeError(f"--auth-file: {path} is not UTF-8 text.", hint="Save it as UTF-8.") from error
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    if not pairs or not all(name and password for name, _, password in pairs):
        message = f"{path} must hold one name:password a line."
        raise ServeError(message, hint="Neither may be empty, and one line is needed at least.")
    return {name: password for name, _, password in pairs}, _warnings(path)


def _warnings(path: Path) -> list[str]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if sys.platform == "win32" or not mode & 0o077:
        return []
    return [f"Other users of this machine can read the passwords in {path}. Fix it with: chmod 600 '{path}'"]


def form(message: str = "") -> bytes:
    """The login page, with what went wrong."""
    page = (Path(str(resources.files("reeltune.web"))) / "assets" / "login.html").read_text(encoding="utf-8")
    shown = f'<div role="alert">{html.escape(message)}</div>' if message else ""
    return page.replace("<!--message-->", shown).encode("utf-8")


@dataclass
class _Attempts:
    """Attempts of one address: one is checked at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    wrong: int = 0
    last: float = 0.0


class Login:
    """Who may use the page. `passwords`: by name; empty where the page asks for none."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = dict(passwords)
        self._cookie = f"reeltune-{secrets.token_hex(4)}"  # pages on several ports share a browser's cookies
        self._sessions: OrderedDict[str, float] = OrderedDict()  # token -> when it ends
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()

    @property
    def needed(self) -> bool:
        """Whether a password is asked for."""
        return bool(self._passwords)

    def known(self, cookies: str) -> bool:
        """Whether the cookies of a request are those of someone logged in."""
        token = self._token(cookies)
        return self._sessions.get(token, 0.0) > time.time()

    def _token(self, cookies: str) -> str:
        try:
            found = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""

    def busy(self, address: str) -> bool:
        """Whether an address has as many attempts open as are taken."""
        return self._of(address).waiting >= _MOST_WAITING

    async def attempt(self, body: bytes, address: str) -> str:
        """A session's token for the right name and password in a form; empty for wrong ones, after a while."""
        attempts = self._of(address)
        attempts.waiting += 1
        try:
            async with attempts.lock:
                if self._fits(body):
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
        name = _network(address)
        found = self._attempts.setdefault(name, _Attempts())
        self._attempts.move_to_end(name)
        if len(self._attempts) > _MOST_ADDRESSES:
            oldest = next((key for key, row in self._attempts.items() if not row.waiting and key != name), None)
            if oldest is not None:
                del self._attempts[oldest]
        return found

    def _fits(self, body: bytes) -> bool:
        try:
            fields = parse_qs(body.decode("utf-8"), max_num_fields=20)
        except ValueError:
            return False
        name, password = fields.get("username", [""])[0].strip(), fields.get("password", [""])[0]
        wanted = self._passwords.get(name, "")
        return hmac.compare_digest(wanted.encode("utf-8"), password.encode("utf-8")) and bool(wanted)

    def _begin(self) -> str:
        token = secrets.token_urlsafe(24)
        self._sessions[token] = time.time() + _SESSION_SECONDS
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def end(self, cookies: str) -> None:
        """Log out."""
        self._sessions.pop(self._token(cookies), None)

    def cookie(self, token: str, *, secure: bool) -> str:
        """The header that gives a browser its session; an empty token takes it away."""
        age = int(_SESSION_SECONDS) if token else 0
        flags = "; Secure" if secure else ""
        return f"{self._cookie}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{flags}"


def _network(address: str) -> str:
    """What counts as one address: of IPv6 the network, as everybody has many addresses in theirs."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
