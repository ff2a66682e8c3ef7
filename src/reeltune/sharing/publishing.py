"""`publish`: upload a definition's own files in one commit, check them, and only then edit the definition.

A publish that was interrupted anywhere is continued by running it again: nothing is visible in the repository before
the commit, and the definition is edited last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.definitions import Catalog, load_catalog
from reeltune.definitions.writer import edit_all
from reeltune.errors import (
    Cancelled,
    DefinitionError,
    PublishError,
    PublishRefused,
    ReeltuneError,
    RepositoryChanged,
    UploadDamaged,
)
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.library.index import Index
from reeltune.net import hub_token
from reeltune.preferences import load_preferences
from reeltune.sharing.hub import Commit, HubRepository, RemoteEntry, RepositoryState, check_repository_name
from reeltune.sharing.leaks import Secrets
from reeltune.sharing.making import make_missing
from reeltune.sharing.own_files import OwnFile
from reeltune.sharing.plan import PublishOptions, PublishPlan, definition_url, file_url, is_same, plan_publication
from reeltune.sharing.sending import Addition
from reeltune.sharing.shareable import published_edits


@dataclass(frozen=True)
class Published:
    """What was published. `url`: what `reeltune add` takes. `page`: the commit or the pull request.

    `edited`: whether the definition lists the URLs now. `tag`: of the commit; empty if there is none.
    """

    repository: str
    url: str
    page: str
    edited: bool
    tag: str = ""


def open_repository(catalog: Catalog, name: str) -> HubRepository:
    """The repository to publish to, with the user's token. Raises PublishError, PublishRefused if there is no token."""
    preferences, _ = load_preferences(catalog.root)
    token = preferences.tokens.get("hub") or hub_token()
    if not token:
        hint = "Set HF_TOKEN, or run `hf auth login`; the token needs the right to write."
        raise PublishRefused("There is no token for the Hub.", hint=hint)
    secrets = Secrets.of(catalog.root, preferences.tokens.values())
    return HubRepository(check_repository_name(name), token, secrets.remove)


def publish(
    catalog: Catalog,
    id: str,
    options: PublishOptions,
    hub: HubRepository,
    folder: Path,
    confirm: Callable[[PublishPlan], PublishPlan],
    *,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Published:
    """Publish a definition. `confirm`: shown the plan before anything is sent; returns it, with a license.

    `folder`: an empty folder for copies of example videos. Raises PublishError and its kinds, Cancelled.
    """
    plan = plan_publication(catalog, id, options, hub, folder, listener=listener, cancel=cancel)
    plan = confirm(plan)
    if plan.license is None:
        raise PublishError(
            "A model is published under a license.", hint="Choose one: --license apache-2.0, for example."
        )
    options = replace(options, license=plan.license)
    made: tuple[OwnFile, ...] = ()
    if plan.missing:
        preferences, _ = load_preferences(catalog.root)
        made = make_missing(plan.definition, preferences, plan.missing, listener, cancel)
    shown_head = None if plan.state is None else plan.state.head
    plan = plan_publication(catalog, id, options, hub, folder, made=made, listener=listener, cancel=cancel)
    if shown_head is not None and (plan.state is None or plan.state.head != shown_head):
        message = f"Somebody changed {plan.repository} after the plan was shown."
        raise RepositoryChanged(message, hint="Run the same command again: it shows the plan for the new state.")
    return _carry_out(plan, hub, listener, cancel)


def _carry_out(plan: PublishPlan, hub: HubRepository, listener: Listener, cancel: CancelToken | None) -> Published:
    """Upload, commit, check, edit the definition."""
    state = plan.state or hub.create()
    commit = _upload(plan, hub, state, listener, cancel)
    _check(plan, hub, commit, state)
    tag = ""
    if commit.oid != state.head and not plan.options.pull_request:
        tag = _tag(hub, commit, listener)
    if plan.options.public and state.private and not plan.options.pull_request:
        hub.make_public()
    edited = False
    if plan.options.pull_request:
        listener(Notice("The definition is unchanged: publish again once the pull request was merged."))
    else:
        edited = _edit_definition(plan, listener)
    url = definition_url(plan.repository, plan.definition.id)
    return Published(plan.repository, url, commit.url, edited, tag)


def _upload(
    plan: PublishPlan, hub: HubRepository, state: RepositoryState, listener: Listener, cancel: CancelToken | None
) -> Commit:
    """Send what the repository lacks and commit it; the last commit if it lacks nothing."""
    if not plan.to_send and not plan.changed_texts:
        listener(Notice(f"{plan.repository} has all files already."))
        return Commit(state.head, f"{definition_url(plan.repository, plan.definition.id)}", state.head)
    for file in plan.to_send:
        addition = Addition(file.name, file.bytes, listener, cancel)
        if cancel is not None:
            cancel.check()
        if file.path.stat().st_size != file.bytes:
            raise PublishError(f"{file.name} has changed since the plan was made.", hint="Run the command again.")
        hub.upload(file, addition, pull_request=plan.options.pull_request)
    return hub.commit(
        plan.to_send,
        plan.changed_texts,
        f"Publish {plan.definition.id}",
        parent=state.head,
        pull_request=plan.options.pull_request,
        cancel=cancel,
    )


def _check(plan: PublishPlan, hub: HubRepository, commit: Commit, state: RepositoryState) -> None:
    """Compare what the Hub has with what was sent. Raises UploadDamaged, after the commit was undone."""
    every = {file.name: file for file in plan.uploads}
    entries = hub.entries(list(every), commit.revision)
    damaged = [name for name, file in every.items() if name not in entries or not is_same(file, entries[name])]
    if not damaged:
        return
    undone = _undo(plan, hub, commit, state, plan.present)
    message = f"The Hub has other bytes than were sent of {damaged[0]}{undone}."
    raise UploadDamaged(message, hint="The definition is unchanged. Run the same command again.")


def _undo(
    plan: PublishPlan, hub: HubRepository, commit: Commit, state: RepositoryState, kept: Mapping[str, RemoteEntry]
) -> str:
    """Undo a commit; returns what has happened, for a message."""
    if commit.oid == state.head:
        return ""
    if plan.options.pull_request:
        return f"; close the pull request {commit.url}"
    names = [file.name for file in plan.to_send] + [file.name for file in plan.changed_texts]
    try:
        hub.revert(names, kept, commit, state.head)
    except ReeltuneError as error:
        return f"; the commit {commit.oid[:8]} has to be undone by hand ({error.message.rstrip('.')})"
    return "; the commit was undone"


def _tag(hub: HubRepository, commit: Commit, listener: Listener) -> str:
    """Tag the commit; without a tag, everything still works."""
    try:
        return hub.tag(commit)
    except Cancelled:
        raise
    except PublishError as error:
        listener(Notice(str(error)))
        return ""


def _edit_definition(plan: PublishPlan, listener: Listener) -> bool:
    """List the URLs in the user's definition, and record which files they lead to. Returns whether it has changed."""
    catalog = load_catalog(plan.definition.root)
    try:
        changes, path = published_edits(catalog, catalog[plan.definition.id], plan.replacements)
        _remember_files(plan, listener)
        if changes:
            edit_all(path, changes)
    except DefinitionError as error:
        message = f"Everything is published, but the definition can't be edited: {error.message}"
        raise PublishError(message, hint="Correct the definition, and run the command again.") from error
    return bool(changes)


def _remember_files(plan: PublishPlan, listener: Listener) -> None:
    """Record that the local files are those of the URLs, so that they aren't downloaded."""
    root = plan.definition.root
    index = Index(root / "ckpts")
    digests = {file.path: file.sha256 for file in plan.large}
    for file in plan.own.files:
        url = file_url(plan.repository, file.name)
        known = file.path
        if not any(known.is_relative_to(root / folder) for folder in ("ckpts", "loras")):
            known = _linked(root / ("loras" if file.role == "loras" else "ckpts") / file.name, known)
            if not known.exists():
                listener(Notice(f"{file.name} is outside ckpts/: it will be downloaded when it is needed next."))
                continue
        index.record_file(known, url, digests[file.path])


def _linked(target: Path, source: Path) -> Path:
    """A hard link to a file outside the folders of weights; where that isn't possible, the path doesn't exist."""
    if not target.exists():
        with contextlib.suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    return target if target.exists() and target.samefile(source) else target.with_name(f"{target.name}.absent")
