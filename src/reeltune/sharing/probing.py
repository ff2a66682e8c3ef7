"""What is behind URLs, asked at the same time, within a limited time: sizes, sha256 and headers.

results = probe_all([Question("https://…/x_bf16.safetensors", weights=True)], tokens)
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.header import parse_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.names import base_name
from reeltune.errors import Offline, ReeltuneError, Unreachable
from reeltune.events import CancelToken
from reeltune.fetch.remote import query_file
from reeltune.net import Session, UrlSource, run_within, shown
from reeltune.net.civitai import resolve

SECONDS = 120.0  # for all questions
SECONDS_PER_FILE = 30.0
_CONNECTIONS = 8
_MIN_SECONDS = 0.1
_LOCAL_NAMES = ("localhost", "localhost.localdomain")
_LOCAL_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Question:
    """A URL to ask about. `weights`: whether its header is read, too."""

    url: str
    weights: bool = True


@dataclass(frozen=True)
class ProbedFile:
    """What is behind a URL. What isn't known is None.

    `name`: the file name that the site reports, if it isn't the URL's. `error`: why the file can't be used. `asked`:
    False if there was no time, or no network, to ask.
    """

    url: str
    name: str = ""
    bytes: int | None = None
    sha256: str | None = None
    header: Header | None = None
    identity: Identity | None = None
    error: ReeltuneError | None = None
    asked: bool = True


def probe_all(
    questions: Iterable[Question],
    tokens: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    cancel: CancelToken | None = None,
) -> dict[str, ProbedFile]:
    """The answers by URL; each URL is asked once. Raises Cancelled."""
    end = time.monotonic() + seconds

    def ask(question: Question) -> ProbedFile:
        remaining = min(SECONDS_PER_FILE, end - time.monotonic())
        if remaining <= 0:
            return ProbedFile(question.url, error=Unreachable("There was no time to ask for it."), asked=False)
        return probe(question, tokens, remaining, cancel)

    unique = list({question.url: question for question in questions}.values())
    answers = in_parallel(ask, unique)
    if cancel is not None:
        cancel.check()
    return {answer.url: answer for answer in answers}


def in_parallel(ask: Callable[[_Question], _Answer], questions: Sequence[_Question]) -> list[_Answer]:
    """The answers to all questions, in their order, a few at the same time."""
    with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="probe") as threads:
        return list(threads.map(ask, questions))


def probe(
    question: Question, tokens: Mapping[str, str], seconds: float, cancel: CancelToken | None = None
) -> ProbedFile:
    """Ask about one URL for at most `seconds`; whatever is wrong becomes the answer's error."""
    size: int | None = None
    sha256: str | None = None
    name = ""
    end = time.monotonic() + seconds
    with Session(tokens=tokens, stall=min(seconds, SECONDS_PER_FILE), connections=1) as session:

        def within(work: Callable[[], _Answer]) -> _Answer:
            remaining = max(_MIN_SECONDS, end - time.monotonic())
            return run_within(remaining, work, stop=session.interrupt, name=shown(question.url), cancel=cancel)

        try:
            resolved = within(lambda: resolve(session, question.url))
            name = resolved.name or ""
            file_name = name or base_name(question.url)
            remote = within(lambda: query_file(session, resolved.url, file_name))
            size, sha256, name = remote.size, resolved.sha256 or remote.sha256, name or remote.name or ""
            if not question.weights:
                return ProbedFile(question.url, name, size, sha256)
            remaining = max(_MIN_SECONDS, end - time.monotonic())
            with UrlSource(resolved.url, session, seconds=remaining, cancel=cancel) as source:
                header = parse_header(source)
            return ProbedFile(question.url, name, header.file_bytes, sha256, header, identify(header))
        except ReeltuneError as error:
            return ProbedFile(question.url, name, size, sha256, error=error, asked=not isinstance(error, Offline))


def is_on_local_network(url: str) -> bool:
    """Whether a URL names this machine or one of its network, as far as its host name shows."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host in _LOCAL_NAMES or host.endswith(_LOCAL_ENDINGS) or "." not in host
