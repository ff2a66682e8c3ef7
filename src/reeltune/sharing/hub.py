"""A repository on the Hub, by way of huggingface_hub; its errors become typed ones without secrets.

repository = HubRepository("me/mine", token)
state = repository.state()                        # None if it doesn't exist
repository.upload(file)                           # the bytes of a large file, before the commit
commit = repository.commit([file, text], "Publish mine", parent=state.head)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from reeltune._text import shortened
from reeltune._version import __version__
from reeltune.errors import PublishError, PublishRefused, ReeltuneError, RepositoryChanged
from reeltune.events import CancelToken
from reeltune.net import HUB, Session, hub_endpoint, refuse_offline
from reeltune.sharing.sending import Addition, prepared, quiet_hub, sent

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_MAX_EXPLANATION = 300  # characters of the Hub's message
_MAX_TAGS = 1000
_HTTP_CLIENTS = ("httpx", "httpcore")  # modules with the errors of huggingface_hub's HTTP client
_AGAIN = "Run the same command again: what has arrived is not sent twice."
_RIGHTS = "Use a token with the right to write (https://huggingface.co/settings/tokens): HF_TOKEN, or `hf auth login`."


@dataclass(frozen=True)
class Account:
    """Who a token belongs to. `organizations`: further names under which repositories can be created."""

    name: str
    organizations: tuple[str, ...]
    may_write: bool


@dataclass(frozen=True)
class RepositoryState:
    """A repository as it is. `head`: its last commit."""

    head: str
    private: bool


@dataclass(frozen=True)
class RemoteEntry:
    """A file in a repository. `sha256`: empty for small files, which have only a `blob_id`."""

    bytes: int
    sha256: str
    blob_id: str


@dataclass(frozen=True)
class Commit:
    """A commit. `url`: its page, or that of its pull request. `revision`: where its files can be read."""

    oid: str
    url: str
    revision: str


@dataclass(frozen=True)
class SmallFile:
    """A text to publish under a name."""

    name: str
    content: bytes = field(repr=False)

    @property
    def blob_id(self) -> str:
        """The id that Git gives the content."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class LargeFile:
    """A file on disk to publish under a name."""

    name: str
    path: Path
    bytes: int
    sha256: str


def check_repository_name(name: str) -> str:
    """A name NAME/REPO. Raises PublishError for anything else, such as a URL."""
    name = name.strip().removeprefix(f"{HUB}/").strip("/")
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".ipynb")):
        raise PublishError(
            f"{name[:100]!r} is not the name of a repository.", hint="Use NAME/REPO, such as me/my-model."
        )
    return name


class HubRepository:
    """One repository of models. `token`: the user's token. `clean`: removes secrets from texts of the Hub.

    Methods raise PublishRefused, RepositoryChanged and PublishError; Cancelled where they take a token for it.
    """

    def __init__(self, name: str, token: str, clean: Callable[[str], str] = str) -> None:
        self.name = name
        self._token = token
        self._clean = clean
        self._uploaded: dict[str, CommitOperationAdd] = {}  # by name and sha256

    @cached_property
    def _api(self) -> HfApi:
        refuse_offline(f"{self.name} can't be published: reeltune is offline.")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is first imported
        from huggingface_hub import HfApi

        return HfApi(endpoint=hub_endpoint(), token=self._token, library_name="reeltune", library_version=__version__)

    def account(self) -> Account:
        """The owner of the token."""
        with self._errors("The token can't be checked"):
            answer = self._api.whoami()
        organizations = answer.get("orgs") or []
        access = (answer.get("auth") or {}).get("accessToken") or {}
        names = tuple(str(entry.get("name", "")) for entry in organizations if isinstance(entry, Mapping))
        return Account(str(answer.get("name", "")), names, access.get("role") != "read")

    def state(self) -> RepositoryState | None:
        """The repository as it is; None if it doesn't exist, or can't be seen with this token."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with self._errors(f"{self.name} can't be read"):
            try:
                info = self._api.model_info(self.name)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError as error:
                if error.response.status_code == 404:
                    return None
                raise
        return RepositoryState(str(info.sha), bool(info.private))

    def check_write(self) -> None:
        """Raise PublishRefused if the token may not write to the repository."""
        from huggingface_hub.errors import HfHubHTTPError

        with self._errors(f"{self.name} can't be written to"):
            try:
                self._api.auth_check(self.name, write=True)
            except HfHubHTTPError as error:
                if error.response.status_code in (403, 404):
                    raise PublishRefused(f"Your token may not write to {self.name}.", hint=_RIGHTS) from error
                raise

    def create(self) -> RepositoryState:
        """Create the repository, private; one that exists meanwhile is used. Returns its state."""
        with self._errors(f"{self.name} can't be created"):
            self._api.create_repo(self.name, private=True, exist_ok=True)
        state = self.state()
        if state is None:
            raise PublishError(f"{self.name} was created, but can't be found.", hint=_AGAIN)
        return state

    def make_public(self) -> None:
        """Make a private repository public."""
        with self._errors(f"{self.name} can't be made public"):
            self._api.update_repo_settings(self.name, private=False)

    def entries(self, names: Sequence[str], revision: str) -> dict[str, RemoteEntry]:
        """What a revision has under these names; names without a file are left out."""
        from huggingface_hub.hf_api import RepoFile

        with self._errors(f"The files of {self.name} can't be listed"):
            found = self._api.get_paths_info(self.name, list(names), revision=revision)
        return {
            entry.path: RemoteEntry(entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id)
            for entry in found
            if isinstance(entry, RepoFile)
        }

    def read(self, name: str, revision: str, max_bytes: int) -> bytes:
        """The content of a small file. Raises FetchError."""
        url = f"{hub_endpoint()}/{self.name}/resolve/{revision}/{name}"
        with Session(tokens={"hub": self._token}) as session:
            return session.read(url, max_bytes)

    def upload(self, file: LargeFile, addition: Addition, *, pull_request: bool) -> None:
        """Send the bytes of a large file; what has arrived before is not sent again. The commit comes later."""
        operation = prepared(file.name, file.path, file.sha256, addition)
        with sent(operation), self._errors(f"{file.name} can't be uploaded"), quiet_hub(addition):
            self._api.preupload_lfs_files(
                self.name, [operation], create_pr=pull_request, num_threads=1, free_memory=False
            )
        addition.finish()
        self._uploaded[file.name + file.sha256] = operation

    def commit(
        self,
        large: Sequence[LargeFile],
        small: Sequence[SmallFile],
        message: str,
        *,
        parent: str,
        pull_request: bool,
        cancel: CancelToken | None = None,
    ) -> Commit:
        """Put all files into one commit. Large files must have been uploaded.

        Raises RepositoryChanged if `parent` is not the last commit anymore.
        """
        from huggingface_hub import CommitOperationAdd

        if cancel is not None:
            cancel.check()
        operations: list[CommitOperationAdd] = [self._uploaded[file.name + file.sha256] for file in large]
        operations += [CommitOperationAdd(file.name, file.content) for file in small]
        with self._errors(f"The commit to {self.name} failed"), quiet_hub():
            info = self._api.create_commit(
                self.name, operations, commit_message=message, parent_commit=parent, create_pr=pull_request
            )
        revision = info.oid
        return Commit(info.oid, str(info.pr_url or info.commit_url), revision)

    def revert(self, names: Sequence[str], kept: Mapping[str, RemoteEntry], commit: Commit, parent: str) -> None:
        """Undo a commit: files that `parent` had are restored, the others of `names` are deleted."""
        from huggingface_hub import CommitOperationCopy, CommitOperationDelete

        operations: list[CommitOperationCopy | CommitOperationDelete] = []
        for name in names:
            if name in kept:
                operations.append(CommitOperationCopy(name, name, src_revision=parent))
            else:
                operations.append(CommitOperationDelete(name))
        with self._errors(f"The commit {commit.oid[:8]} of {self.name} can't be undone"), quiet_hub():
            self._api.create_commit(
                self.name, operations, commit_message="Undo an upload that arrived damaged", parent_commit=commit.oid
            )

    def tag(self, commit: Commit) -> str:
        """Tag a commit as the next version, `v1`, `v2` and so on; returns the tag."""
        with self._errors(f"The commit of {self.name} can't be tagged"):
            taken = {reference.name for reference in self._api.list_repo_refs(self.name).tags}
            number = next(number for number in range(1, _MAX_TAGS) if f"v{number}" not in taken)
            self._api.create_tag(self.name, tag=f"v{number}", revision=commit.oid, exist_ok=True)
        return f"v{number}"

    # --- errors ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _errors(self, failure: str) -> Iterator[None]:
        """Raise typed errors in place of those of huggingface_hub and its HTTP client."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except ReeltuneError:
            raise
        except Exception as error:  # huggingface_hub wraps the errors of uploads in errors of any kind
            for cause in _causes(error):
                if isinstance(cause, ReeltuneError):
                    raise cause from error
                if isinstance(cause, HfHubHTTPError):
                    self._raise_for_status(failure, cause)
                if type(cause).__module__.startswith(_HTTP_CLIENTS):
                    reason = f"{failure}: the Hub can't be reached ({type(cause).__name__})."
                    raise PublishError(reason, hint=_AGAIN) from error
            reason = self._clean(shortened(str(error) or type(error).__name__, _MAX_EXPLANATION))
            raise PublishError(f"{failure}: {reason.rstrip('.')}.", hint=_AGAIN) from error

    def _raise_for_status(self, failure: str, error: HfHubHTTPError) -> NoReturn:
        status = error.response.status_code
        explanation = self._clean(shortened(" ".join((error.server_message or "").split()), _MAX_EXPLANATION))
        reported = f' It reports: "{explanation}"' if explanation else ""
        if status == 401:
            raise PublishRefused(f"{failure}: the Hub refused the token.{reported}", hint=_RIGHTS) from error
        if status == 403:
            raise PublishRefused(f"{failure}: the token has no right to do that.{reported}", hint=_RIGHTS) from error
        if status in (409, 412):
            hint = "Run the same command again: it shows the plan for the new state first."
            raise RepositoryChanged(f"{failure}: the repository has changed meanwhile.{reported}", hint=hint) from error
        raise PublishError(f"{failure}: the Hub responded with status {status}.{reported}", hint=_AGAIN) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
