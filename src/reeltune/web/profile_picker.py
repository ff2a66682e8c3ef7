"""The profiles of a model in its form: choosing one changes the settings that make the model fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.errors import Problem
from reeltune.profiles import Profile
from reeltune.service.drafts import VideoDraft
from reeltune.service.fields import FormField
from reeltune.service.profiles import (
    draft_with_lora_preset,
    draft_with_profile,
    offered_lora_presets,
    offered_profiles,
    profile_of_draft,
)
from reeltune.service.workspace import Workspace
from reeltune.web.events import QUIET, Updates, reporting
from reeltune.web.markup import hint, notices_list
from reeltune.web.widgets import form_values

_PRESET = "preset:"  # prefix of the values of LoRA presets
_HELP = "Fewer steps with LoRAs that make this possible. The prompt and your own LoRAs stay."


class ProfilePicker:
    """The choice of a profile in one drawing of the form. `answer`: where answers are shown."""

    def __init__(
        self, workspace: Workspace, definition: Definition, draft: gr.State, current: VideoDraft, answer: gr.HTML
    ) -> None:
        self._workspace, self._definition = workspace, definition
        self._draft, self._current, self._answer = draft, current, answer
        self._list: gr.Dropdown | None = None
        self._fields: Sequence[FormField] = ()

    def draw(self) -> None:
        """Draw the list, if there is anything to choose, and what files can't be used."""
        profiles = offered_profiles(self._workspace, self._definition)
        presets = offered_lora_presets(self._workspace, self._definition)
        problems = notices_list([_in_words(problem) for problem in (*profiles.problems, *presets.problems)])
        choices = [(profile.name, profile.name) for profile in profiles.profiles]
        choices += [(f"{preset.name} (LoRA preset)", _PRESET + preset.name) for preset in presets.profiles]
        if choices:
            used = profile_of_draft(self._workspace, self._current, {})
            with gr.Row(elem_classes="rt-fields"):
                self._list = gr.Dropdown(
                    [("None", ""), *choices],
                    value=used.name if used else "",
                    label="Profile",
                    info=_HELP,
                    elem_id="profile",
                    interactive=True,
                    key=f"{self._current.version}-profile",
                )
            problems = _description(used) + problems
        if problems:
            gr.HTML(problems, apply_default_css=False, elem_id="about-profile")

    def attach(self, fields: Sequence[FormField], inputs: Sequence[Any]) -> None:
        """Change the draft when another profile is chosen. `inputs`: the components of the form, one for each field."""
        if self._list is None:
            return
        self._fields = fields
        report = reporting(self._answer)
        self._list.input(report(self._choose), [self._list, *inputs], [self._draft, self._answer], **QUIET)

    def _choose(self, name: Any, *values: Any) -> Updates:
        entered = form_values(list(self._fields), values)
        chosen = name if isinstance(name, str) else ""
        if chosen.startswith(_PRESET):
            preset = chosen.removeprefix(_PRESET)
            return {self._draft: draft_with_lora_preset(self._workspace, self._current, entered, preset)}
        return {self._draft: draft_with_profile(self._workspace, self._current, entered, chosen)}


def _description(profile: Profile | None) -> str:
    return hint(profile.description) if profile is not None and profile.description else ""


def _in_words(problem: Problem) -> str:
    return f"{problem.file}: {problem.message} {problem.fix}".rstrip()
