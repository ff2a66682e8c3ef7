"""A local server that speaks the part of the Hub's API that publishing and downloading need."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN, READER, OTHER = "hf_" + "w" * 34, "hf_" + "r" * 34, "hf_" + "o" * 34  # of accounts below
PART = 1_000_000  # bytes of a part; larger files are sent in several
_LARGE_NAMES = (".safetensors", ".mp4")


@dataclass
class Repository:
    """`commits`: oid and files, the last one is the head. `files`: bytes by path."""

    private: bool = True
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)  # commits of pull requests
    writers: set[str] = field(default_factory=set)
    others: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files of pull requests by oid

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.files
        revision = self.tags.get(revision, revision)
        return next((files for oid, files in self.commits if oid == revision), self.others.get(revision))

    def add(self, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}{id(files)}".encode()).hexdigest()
        self.commits.append((oid, files))
        return oid


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """The server. `hook(number, method, path)` may return a status to answer with, or "drop" to close the connection.

    `damage`: changes the bytes of uploads as they arrive. `checks_uploads`: whether damaged ones are refused.
    """

    def __init__(self) -> None:
        self.accounts = {
            TOKEN: {"name": "me", "orgs": [{"name": "studio"}], "role": "write"},
            READER: {"name": "me", "orgs": [], "role": "read"},
            OTHER: {"name": "else", "orgs": [], "role": "write"},
        }
        self.repositories: dict[str, Repository] = {}
        self.store: dict[str, bytes] = {}  # large files by the sha256 that they were announced with
        self.parts: dict[tuple[str, int], bytes] = {}
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.received = 0  # bytes of uploads
        self.hook: Callable[[int, str, str], int | str | None] = lambda *_: None
        self.damage: Callable[[bytes], bytes] = lambda content: content
        self.checks_uploads = True
        self.lock = threading.RLock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def create(self, name: str, files: dict[str, bytes] | None = None, *, private: bool = False) -> Repository:
        owner = name.partition("/")[0]
        repository = Repository(private, writers={owner})
        repository.add({".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})})
        self.repositories[name] = repository
        return repository

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(_HubHandler):
        pass

    Handler.hub = hub
    return Handler


class _HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.serve("GET")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.serve("POST")

    def do_PUT(self) -> None:
        self.serve("PUT")

    def serve(self, method: str) -> None:
        self.body = self._read_body()
        with self.hub.lock:
            self.hub.requests.append(f"{method} {self.path}")
            self.hub.bodies.append(self.body)
            action = self.hub.hook(len(self.hub.requests), method, self.path)
            if action == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if isinstance(action, int):
                self.fail(action, "A planned fault.")
                return
            parts = urlsplit(self.path)
            self.query = parse_qs(parts.query)
            for verb, pattern, name in _ROUTES:
                match = re.fullmatch(pattern, unquote(parts.path))
                if match and verb == method:
                    getattr(self, name)(*match.groups())
                    return
            self.fail(404, "Not found")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(body)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    # --- answers --------------------------------------------------------------------------------------------

    def send(self, content: bytes, status: int = 200, type: str = "application/json", **headers: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", type)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:  # the client is gone
            self.close_connection = True

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(value).encode(), status, **headers)

    def fail(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self.json({"error": message}, status, **headers)

    def account(self) -> dict[str, Any] | None:
        return self.hub.accounts.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def repository(self, name: str, *, write: bool = False) -> Repository | None:
        """A repository that the caller may use; otherwise the answer is sent."""
        found = self.hub.repositories.get(name)
        account = self.account()
        if self.headers.get("Authorization") and account is None:
            self.fail(401, "Invalid credentials in Authorization header")
            return None
        names = {account["name"], *(org["name"] for org in account["orgs"])} if account else set()
        if found is None or (found.private and not names & found.writers):
            self.fail(404 if account else 401, "Repository not found", "RepoNotFound")
            return None
        if write and (not names & found.writers or account is None or account["role"] == "read"):
            self.fail(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
            return None
        return found

    # --- accounts and repositories --------------------------------------------------------------------------

    def whoami(self) -> None:
        account = self.account()
        if account is None:
            self.fail(401, "Invalid user token.")
            return
        self.json({"type": "user", "name": account["name"], "orgs": account["orgs"],
                   "auth": {"type": "access_token", "accessToken": {"role": account["role"]}}})  # fmt: skip

    def model(self, name: str) -> None:
        repository = self.repository(name)
        if repository is not None:
            self.json(
                {"id": name, "modelId": name, "sha": repository.head, "private": repository.private, "siblings": []}
            )

    def auth_check(self, name: str) -> None:
        if self.repository(name, write=True) is not None:
            self.json({})

    def create(self) -> None:
        value, account = json.loads(self.body), self.account()
        owner = value.get("organization") or (account or {}).get("name")
        name = f"{owner}/{value['name']}"
        if account is None:
            self.fail(401, "Invalid user token.")
        elif account["role"] == "read" or owner not in {account["name"], *(org["name"] for org in account["orgs"])}:
            self.fail(403, "You don't have the rights to create a model under the namespace.")
        elif name in self.hub.repositories:
            self.json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            private = value.get("private", value.get("visibility") == "private")
            self.hub.create(name, private=bool(private)).writers.add(owner)
            self.json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def settings(self, name: str) -> None:
        repository = self.repository(name, write=True)
        if repository is not None:
            value = json.loads(self.body)
            repository.private = bool(value.get("private", value.get("visibility") == "private"))
            self.json({"private": repository.private})

    def refs(self, name: str) -> None:
        repository = self.repository(name)
        if repository is not None:
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in repository.tags.items()
            ]
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
            self.json({"branches": [branch], "converts": [], "tags": tags})

    def tag(self, name: str, revision: str) -> None:
        repository = self.repository(name, write=True)
        if repository is not None:
            repository.tags[json.loads(self.body)["tag"]] = repository.head if revision == "main" else revision
            self.json({})

    # --- uploads --------------------------------------------------------------------------------------------

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        if "license:" in content.split("---")[1]:
            self.json({"errors": [], "warnings": []})
        else:
            self.json({"errors": [{"message": "license is missing"}], "warnings": []}, 400)

    def preupload(self, name: str, revision: str) -> None:
        repository = self.repository(name, write=not self.query.get("create_pr"))
        if repository is None:
            return
        answer = []
        for file in json.loads(self.body)["files"]:
            large = file["path"].endswith(_LARGE_NAMES) or file["size"] > 10_000_000
            old = repository.files.get(file["path"])
            oid = None if old is None else sha256(old) if large else blob_id(old)
            mode = "lfs" if large else "regular"
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.json({"files": answer})

    def batch(self, name: str) -> None:
        if self.repository(name) is None:
            return
        objects = []
        for file in json.loads(self.body)["objects"]:
            entry = dict(file)
            if file["oid"] not in self.hub.store:
                address = f"{self.hub.url}/upload/{file['oid']}"
                upload: dict[str, Any] = {"href": f"{address}/1"}
                if file["size"] > PART:
                    count = -(-file["size"] // PART)
                    urls = {f"{number:05}": f"{address}/{number}" for number in range(1, count + 1)}
                    upload = {"href": f"{address}/complete", "header": {"chunk_size": str(PART), **urls}}
                verify = {"href": f"{address}/verify"}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        self.json({"transfer": "multipart", "objects": objects})

    def part(self, oid: str, number: str) -> None:
        self.hub.parts[oid, int(number)] = self.hub.damage(self.body)
        self.hub.received += len(self.body)
        self.send(b"", ETag=f'"{number}"')

    def complete(self, oid: str) -> None:
        self.json({})

    def verify(self, oid: str) -> None:
        numbers = sorted(number for part_oid, number in self.hub.parts if part_oid == oid)
        content = b"".join(self.hub.parts[oid, number] for number in numbers)
        damaged = sha256(content) != oid
        if damaged:  # nothing of it is used again
            for number in numbers:
                del self.hub.parts[oid, number]
        if damaged and self.hub.checks_uploads:
            self.fail(422, "The sha256 of the object differs.")
            return
        self.hub.store[oid] = content
        self.json({})

    def commit(self, name: str, revision: str) -> None:
        is_pull = bool(self.query.get("create_pr"))
        repository = self.repository(name, write=not is_pull)
        if repository is None:
            return
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                parent = value.get("parentCommit", repository.head)
                if parent != repository.head and not is_pull:
                    self.fail(412, "A commit has happened since. Please refresh and try again.")
                    return
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    self.fail(400, f"{value['path']} was not uploaded.")
                    return
                files[value["path"]] = self.hub.store[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        pull = None
        if is_pull:
            oid = hashlib.sha1(self.body).hexdigest()
            repository.others[oid] = files
            repository.pulls.append(oid)
            pull = f"{self.hub.url}/{name}/discussions/{len(repository.pulls)}"
        else:
            oid = repository.add(files)
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "pullRequestUrl": pull})

    # --- files ----------------------------------------------------------------------------------------------

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        value: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if path.endswith(_LARGE_NAMES):
            value["lfs"] = {"oid": sha256(content), "sha256": sha256(content), "size": len(content), "pointerSize": 130}
        return value

    def paths_info(self, name: str, revision: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return
        files = repository.at(revision)
        if files is None:
            self.fail(404, "Invalid rev id", "RevisionNotFound")
            return
        paths = parse_qs(self.body.decode()).get("paths", [])
        self.json([self.entry(path, files[path]) for path in paths if path in files])

    def tree(self, name: str, revision: str, folder: str | None) -> None:
        repository = self.repository(name)
        if repository is None:
            return
        files = repository.at(revision) or {}
        prefix = f"{folder}/" if folder else ""
        inside = {path: content for path, content in files.items() if path.startswith(prefix)}
        if folder and not inside:
            self.fail(404, "Entry not found", "EntryNotFound")
            return
        self.json([self.entry(path, inside[path]) for path in inside if "/" not in path.removeprefix(prefix)])

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return
        content = (repository.at(revision) or {}).get(path)
        if content is None:
            self.fail(404, "Entry not found", "EntryNotFound")
        elif path.endswith(_LARGE_NAMES):
            address = f"{self.hub.url}/storage/{sha256(content)}"
            headers = {"X_Linked_Etag": f'"{sha256(content)}"', "X_Linked_Size": str(len(content))}
            self.hub.store.setdefault(sha256(content), content)
            self.send(b"", 302, Location=address, **headers)
        else:
            self.ranged(content, blob_id(content))

    def storage(self, oid: str) -> None:
        self.ranged(self.hub.store[oid], oid)

    def ranged(self, content: bytes, etag: str) -> None:
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and content:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            extent = f"bytes {first}-{last}/{len(content)}"
            part = content[first : last + 1]
            self.send(part, 206, "application/octet-stream", ETag=f'"{etag}"', Content_Range=extent)
        else:
            self.send(content, 200, "application/octet-stream", ETag=f'"{etag}"')

    def page(self, name: str) -> None:
        self.send(b"<!doctype html><html>A page</html>", type="text/html")


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("GET", f"/api/models/{_NAME}", "model"),
    ("GET", f"/api/models/{_NAME}/auth-check/write", "auth_check"),
    ("PUT", f"/api/models/{_NAME}/settings", "settings"),
    ("GET", f"/api/models/{_NAME}/refs", "refs"),
    ("POST", f"/api/models/{_NAME}/tag/([^/]+)", "tag"),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", "preupload"),
    ("POST", f"/{_NAME}[.]git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/upload/([0-9a-f]{64})/(\d+)", "part"),
    ("POST", "/upload/([0-9a-f]{64})/complete", "complete"),
    ("POST", "/upload/([0-9a-f]{64})/verify", "verify"),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", "commit"),
    ("POST", f"/api/models/{_NAME}/paths-info/([^/]+)", "paths_info"),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)(?:/(.+))?", "tree"),
    ("GET", f"/{_NAME}/resolve/([^/]+)/(.+)", "resolve"),
    ("GET", "/storage/([0-9a-f]{64})", "storage"),
    ("GET", f"/{_NAME}/blob/.+", "page"),
)
