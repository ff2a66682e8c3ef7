import os

from reeltune.library.index import FILE_NAME, Index
from reeltune.library.inventory import Inventory

URL = "https://civitai.com/api/download/models/56?type=Model&token=secret"


def put(root, content=b"x" * 9):
    path = root / "ckpts" / "sub" / "fine.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_found_by_its_url_and_its_sha256(root):
    path, index = put(root), Index(root / "ckpts")
    assert index.file_from_url(URL) is None
    assert index.sha256(path) is None
    index.record_file(path, URL, "ab" * 32)
    assert index.file_from_url(URL.replace("secret", "other")) == path
    assert index.sha256(path) == "ab" * 32
    assert index.sha256(root / "elsewhere") is None
    assert b"secret" not in (root / "ckpts" / FILE_NAME).read_bytes()


def test_records_of_changed_and_deleted_files_are_not_used(root):
    path, index = put(root), Index(root / "ckpts")
    index.record_file(path, URL, "ab" * 32)
    os.utime(path, ns=(1, 1))
    assert index.sha256(path) is None
    path.unlink()
    assert index.file_from_url(URL) is None


def test_a_damaged_index_is_replaced(root):
    path, index = put(root), Index(root / "ckpts")
    (root / "ckpts" / FILE_NAME).write_bytes(b"no database" * 400)
    assert index.sha256(path) is None
    index.record_file(path, URL, "ab" * 32)
    assert index.sha256(path) == "ab" * 32


def test_urls_without_a_file_name_find_their_file(root):
    from reeltune.definitions.model import Version

    path = put(root)
    Index(root / "ckpts").record_file(path, URL, "ab" * 32)
    assert Inventory(root).known_files(Version(URL)) == [path]
