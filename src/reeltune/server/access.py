"""Who may use the page and the API: anybody on a local server, else visitors who log in and programs with a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reeltune.server.keys import Keys
from reeltune.server.login import Login


@dataclass(frozen=True)
class Access:
    """The login of the page and the keys of the API. Without both, everybody may use both."""

    login: Login
    keys: Keys

    @property
    def needed(self) -> bool:
        """Whether requests need a login or a key."""
        return self.login.needed or self.keys.needed

    @property
    def refusal(self) -> str:
        """What a program without a valid key is told."""
        if self.keys.needed:
            return "A valid API key is needed. Send it as `Authorization: Bearer KEY`."
        return "This server has no API keys: start it with --api-key-file FILE."

    def allows_visitor(self, headers: Mapping[str, str]) -> bool:
        """Whether the page may be shown. `headers`: of the request, their names in lower case."""
        return not self.login.needed or self.login.is_logged_in(headers.get("cookie", ""))

    def allows_program(self, headers: Mapping[str, str]) -> bool:
        """Whether the API may be used: with a key, or in the browser of a visitor who is logged in."""
        if not self.needed:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.keys.contain(key.strip()):
            return True
        return self.login.needed and self.login.is_logged_in(headers.get("cookie", ""))
