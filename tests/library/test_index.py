import os

from reeltune.library.index import FILE_NAME, Index
from reeltune.library.inventory import Inventory

URL = "https://civitai.com/api/download/models/56?type=Model&token=secret"


def put(root, content=b"x" * 9):
    path = root / "ckpts" / "sub" / "fine.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_known_by_its_link_and_its_sum(root):
    path, index = put(root), Index(root / "ckpts")
    assert index.file_from_url(URL) is None
    assert index.sha256(path) is None
    index.record_file(path, URL, "ab" * 32)
    assert index.file_from_url(URL.replace("secret", "other")) == path
    assert index.sha256(path) == "ab" * 32
    assert index.sha256(root / "elsewhere") is None
    assert b"secret" not in (root / "ckpts" / FILE_NAME).read_bytes()


def test_a_changed_or_lost_file_is_no_longer_known(root):
    path, index = put(root), Index(root / "ckpts")
    index.record_file(path, URL, "ab" * 32)
    os.utime(path, ns=(1, 1))
    assert index.sha256(path) is None
    path.unlink()
    assert index.file_from_url(URL) is None


def test_a_damaged_index_is_begun_anew(root):
    path, index = put(root), Index(root / "ckpts")
    (root / "ckpts" / FILE_NAME).write_bytes(b"no database" * 400)
    assert index.sha256(path) is None
    index.record_file(path, URL, "ab" * 32)
    assert index.sha256(path) == "ab" * 32


def test_links_without_a_name_find_their_file(root):
    from reeltune.definitions.model import Version

    path = put(root)
    Index(root / "ckpts").record_file(path, URL, "ab" * 32)
    assert Inventory(root).known_files(Version(URL)) == [path]
