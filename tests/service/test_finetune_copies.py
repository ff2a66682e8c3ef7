"""Copies of prebuilt finetunes work like the originals, and every copy gets a free id."""

from types import SimpleNamespace

import pytest

from reeltune.errors import DefinitionError
from reeltune.jobs import Queue
from reeltune.service.finetunes import copy_prebuilt, own_files, prebuilt_finetunes
from reeltune.service.workspace import Workspace


@pytest.fixture
def workspace(root):
    return Workspace(root, SimpleNamespace(queue=Queue(root)))


def versions(definition):
    return {slot: [version.url for version in versions] for slot, versions in definition.slots.items()}


def test_a_copy_of_each_prebuilt_finetune_uses_the_same_files_and_settings(workspace):
    prebuilt = list(prebuilt_finetunes(workspace))
    assert prebuilt
    for id in prebuilt:
        copy_id = copy_prebuilt(workspace, id)
        original, copy = workspace.catalog()[id], workspace.catalog()[copy_id]
        assert copy.name == f"{original.name} (copy)"
        assert versions(copy) == versions(original)
        assert copy.architecture == original.architecture
        assert dict(original.settings).items() <= dict(copy.settings).items()
    assert len(own_files(workspace)) == len(prebuilt)


def test_ids_of_copies_are_free_and_only_prebuilt_finetunes_are_copied(workspace, root):
    id = next(iter(prebuilt_finetunes(workspace)))
    (root / "finetunes" / f"{id}_copy.json").write_text("{")  # a broken file also takes its id
    assert copy_prebuilt(workspace, id) == f"{id}_copy_2"
    assert copy_prebuilt(workspace, id) == f"{id}_copy_3"
    for other in (f"{id}_copy_2", "nothing"):
        with pytest.raises(DefinitionError, match="is not a prebuilt finetune"):
            copy_prebuilt(workspace, other)
    with pytest.raises(DefinitionError, match="Choose a prebuilt finetune"):
        copy_prebuilt(workspace, "")
