"""The form of the preferences: every preference has a label, and no choice without an effect is offered."""

import dataclasses
from types import SimpleNamespace

import pytest

from reeltune.jobs import Queue
from reeltune.machine import Gpu, probe
from reeltune.preferences import CHOICES, FIELDS, Preferences, save_preferences
from reeltune.service import preference_fields as fields_module
from reeltune.service.preference_fields import PREFERENCE_LABELS, preference_fields
from reeltune.service.workspace import Workspace


@pytest.fixture
def workspace(root):
    workspace = Workspace(root, SimpleNamespace(queue=Queue(root)))
    workspace.machine = dataclasses.replace(probe(), gpus=(), unlisted=False, apple=False)
    return workspace


def values(workspace, name):
    return [value for field in preference_fields(workspace) if field.name == name for _, value in field.choices]


def test_every_preference_has_a_label_and_every_choice_is_explained_in_words(workspace):
    assert set(PREFERENCE_LABELS) == set(FIELDS)
    for field in preference_fields(workspace):
        assert field.label
        assert not {"", None} & {label for label, _ in field.choices}
        if field.kind == "choice":
            assert {value for _, value in field.choices} <= set(CHOICES[field.name])


def test_memory_profiles_are_only_a_choice_for_devices_with_memory_of_their_own(workspace):
    assert values(workspace, "memory_profile") == []
    workspace.machine = dataclasses.replace(workspace.machine, gpus=(Gpu("Card", 8 * 2**30, 8.6),))
    assert values(workspace, "memory_profile") == list(CHOICES["memory_profile"])


def test_attention_is_only_a_choice_where_libraries_for_it_are_installed(workspace, root, monkeypatch):
    installed = set()
    monkeypatch.setattr(fields_module.importlib.util, "find_spec", lambda name: name in installed or None)
    assert values(workspace, "attention") == []
    installed.add("sageattention")
    assert values(workspace, "attention") == []  # these libraries need a graphics card
    workspace.machine = dataclasses.replace(workspace.machine, gpus=(Gpu("Card", 8 * 2**30, 8.6),))
    assert values(workspace, "attention") == ["auto", "sage"]
    save_preferences(root, Preferences(attention="flash"))
    assert values(workspace, "attention") == ["auto", "flash", "sage"]  # the stored choice is always shown
