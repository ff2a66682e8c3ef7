"""Profiles and LoRA presets for forms: which ones fit a model, and drafts that use them."""

from __future__ import annotations

from reeltune.definitions import Definition
from reeltune.families.values import Settings
from reeltune.profiles import (
    OfferedProfiles,
    Profile,
    applied_profile,
    apply_profile,
    presets_of,
    profiles_of,
    remove_profile,
    repeated_loras,
)
from reeltune.service.drafts import Message, VideoDraft
from reeltune.service.fields import FormValues, displayed_settings
from reeltune.service.workspace import Workspace


def offered_profiles(workspace: Workspace, definition: Definition) -> OfferedProfiles:
    """The profiles that fit a model, and problems of files that can't be used."""
    return profiles_of(definition, workspace.preferences().model_folders)


def offered_lora_presets(workspace: Workspace, definition: Definition) -> OfferedProfiles:
    """The LoRA presets in the folders of a model's LoRAs, and problems of files that can't be used."""
    return presets_of(definition, workspace.preferences().model_folders)


def profile_of_draft(workspace: Workspace, draft: VideoDraft, form_values: FormValues) -> Profile | None:
    """The profile that a form's settings contain, for the choice that shows it; None for none or an unknown one.

    Raises DefinitionError for a model that can't be resolved.
    """
    definition = workspace.catalog()[draft.id]
    return applied_profile(_current(draft, form_values), offered_profiles(workspace, definition).profiles)


def draft_with_profile(workspace: Workspace, draft: VideoDraft, form_values: FormValues, name: str = "") -> VideoDraft:
    """The draft with the profile of this name instead of the one that the form's settings contain; "" for none.

    Settings that only the former profile set return to those that the model starts from. What belongs to the video
    stays as it is in the form: prompt, seed, size, length, inputs and the user's own LoRAs. Raises SettingsError for an
    unknown name or an invalid `loras_multipliers`, DefinitionError for a model that can't be resolved.
    """
    definition = workspace.catalog()[draft.id]
    offered = offered_profiles(workspace, definition)
    current = _current(draft, form_values)
    former = applied_profile(current, offered.profiles)
    settings = remove_profile(current, draft.initial, former)
    if not name:
        return _changed(draft, definition, settings, Message("The form uses no profile."))
    return _applied(draft, definition, settings, offered.named(name))


def draft_with_lora_preset(workspace: Workspace, draft: VideoDraft, form_values: FormValues, name: str) -> VideoDraft:
    """The draft with the LoRAs of a preset instead of the user's own; a profile stays.

    Raises as `draft_with_profile`.
    """
    definition = workspace.catalog()[draft.id]
    preset = offered_lora_presets(workspace, definition).named(name)
    return _applied(draft, definition, _current(draft, form_values), preset)


def _applied(draft: VideoDraft, definition: Definition, settings: Settings, profile: Profile) -> VideoDraft:
    notices = list(profile.notices)
    notices += [
        f"{lora} is left out of your LoRAs: the profile has a LoRA of this name."
        for lora in repeated_loras(settings, profile)
    ]
    changed = apply_profile(settings, profile)
    return _changed(draft, definition, changed, Message(f"The form uses {profile.name}.", tuple(notices)))


def _current(draft: VideoDraft, form_values: FormValues) -> Settings:
    """The draft's settings with what the form contains now; an empty number counts as unchanged."""
    return {**draft.settings, **{key: value for key, value in form_values.items() if value is not None}}


def _changed(draft: VideoDraft, definition: Definition, settings: Settings, message: Message) -> VideoDraft:
    return draft.with_changes(settings=displayed_settings(settings, definition.architecture), message=message)
