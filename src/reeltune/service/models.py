"""Models as lists of programs show them: what can be made here, and what would be downloaded first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reeltune.definitions import Definition
from reeltune.definitions.catalog import Summary
from reeltune.service.model_states import ModelState
from reeltune.service.workspace import Workspace

_WAIT_SECONDS = 20.0  # for the states of models after a change; programs ask once, unlike the page


@dataclass(frozen=True)
class ListedModel:
    """A definition in a list.

    `ready`: whether all of its files are here. `reason`: why it can't run here, empty if it can. `missing`: bytes to
    download, None while that isn't known.
    """

    summary: Summary
    ready: bool
    reason: str
    missing: int | None

    @property
    def runnable(self) -> bool:
        """Whether videos can be made with it, once its files are here."""
        return not self.reason


def list_models(workspace: Workspace) -> list[ListedModel]:
    """All visible definitions, by id. Raises PreferencesError."""
    states = workspace.model_states(_WAIT_SECONDS)
    summaries = [summary for summary in workspace.catalog().summaries() if summary.visible]
    return [_listed(summary, states) for summary in sorted(summaries, key=lambda summary: summary.id)]


def _listed(summary: Summary, states: Mapping[str, ModelState]) -> ListedModel:
    state = states.get(summary.id)
    if state is None:
        return ListedModel(summary, False, summary.reason, None)
    return ListedModel(summary, state.ready, summary.reason or state.reason, state.missing)


def changed(definition: Definition) -> int:
    """When the newest file of a definition was changed, in seconds since 1970; 0 if it is gone meanwhile."""
    times = [int(path.stat().st_mtime) for path in definition.files if path.exists()]
    return max(times, default=0)
