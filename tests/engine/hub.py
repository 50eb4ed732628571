"""A small hub on the loopback: enough of the Hugging Face hub's protocol to download a model from it.

As there, a small file's ETag is that of its blob in git, and the weights are stored elsewhere: their address redirects.

    with FakeHub({"org/name": {"config.json": b"{}"}}) as hub:
        ... run a program with HF_ENDPOINT=hub.endpoint ...
    hub.requests

Faults are plain attributes: `gated`, `status`, `cut_after`, `broken`, `stalled`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_INFO = re.compile(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^?]+))?(?:\?.*)?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")
_LARGE = re.compile(r"/large/([^/]+/[^/]+)/([^?]+)")
_INHERITED_NOT = ("HF_", "HUGGING", "TRANSFORMERS_")


def make_environ(endpoint: str, home: Path) -> dict[str, str]:
    """The environment of a process whose hub is at an address, and whose caches lie in a folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_INHERITED_NOT)}
    return inherited | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HOME": str(home), "NO_PROXY": "127.0.0.1"}


@dataclass
class FakeHub:
    """Serves repositories, `{"org/name": {"file": bytes}}`, each with the branch `main` and one commit.

    Attributes:
        repositories: what there is.
        gated: repositories that only the token `hf_good` opens.
        status: answers everything with this status.
        cut_after: cuts the first answer of more bytes than this after so many; later ones come whole.
        broken: files whose content never comes: the connection is closed.
        stalled: files whose content never comes, while the connection stays open; `is_stalling` is set then.
        sizes: what the hub says of files' sizes where it is not the truth.
        requests: what was asked for so far, `("GET", path)`.
        ranges: the `Range` headers that came.
    """

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    status: int | None = None
    cut_after: int | None = None
    broken: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    is_stalling: threading.Event = field(default_factory=threading.Event)
    sizes: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeHub:
        self._closing = threading.Event()
        hub = self

        class Handler(_Handler):
            served = hub

        # The hub, and where it stores the weights.
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}) for server in self._servers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closing.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def endpoint(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def storage(self) -> str:
        """Where the weights are."""
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def fetched(self) -> list[str]:
        """The names of the files whose content was asked for."""
        paths = [path for method, path in self.requests if method == "GET"]
        found = (_FILE.fullmatch(path) or _LARGE.fullmatch(path) for path in paths)
        return [match[match.re.groups] for match in found if match and not _is_redirected(match)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.served
        hub.requests.append((self.command, self.path))
        found = _FILE.fullmatch(self.path) or _INFO.fullmatch(self.path)
        large = _LARGE.fullmatch(self.path)
        if hub.status is not None:
            return self._fail(hub.status)
        if large is not None:
            return self._send_content(large[1], large[2])
        if found is None:
            return self._fail(404)
        repo, revision = found[1], found[2] or "main"
        if repo not in hub.repositories:
            return self._fail(401, "RepoNotFound")  # the hub does not tell missing from private
        if repo in hub.gated and self.headers.get("Authorization") != "Bearer hf_good":
            return self._fail(403 if "Authorization" in self.headers else 401, "GatedRepo")
        if revision not in ("main", COMMIT):
            return self._fail(404, "RevisionNotFound")
        files = hub.repositories[repo]
        if found.re is _INFO:
            return self._send(
                200, json.dumps(_describe(repo, files, hub.sizes)).encode(), {"Content-Type": "application/json"}
            )
        if found[3] not in files:
            return self._fail(404, "EntryNotFound")
        if not _is_redirected(found):
            return self._send_content(repo, found[3])
        data = files[found[3]]
        headers = {
            "Location": f"{hub.storage}/large/{repo}/{found[3]}",
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
        }
        return self._send(302, b"", headers)

    def _send_content(self, repo: str, name: str) -> None:
        hub = self.served
        if self.command == "GET" and name in hub.broken:
            self.close_connection = True
            return None
        if self.command == "GET" and name in hub.stalled:
            hub.is_stalling.set()
            hub._closing.wait()
        return self._send_file(hub.repositories[repo][name])

    def _fail(self, status: int, code: str = "") -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _send_file(self, data: bytes) -> None:
        blob = hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()
        headers = {"ETag": f'"{blob}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, data, headers)
        self.served.ranges.append(wanted[0])
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206, data[start:], headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.served.cut_after
        if cut is not None and len(data) > cut:
            self.served.cut_after = None
            data = data[:cut]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client may be gone
            self.wfile.write(data)


def _is_redirected(match: re.Match[str]) -> bool:
    """Whether a file's address leads to where it is stored."""
    return match.re is _FILE and match[3].endswith(".safetensors")


def _describe(repo: str, files: dict[str, bytes], sizes: dict[str, int]) -> dict[str, object]:
    siblings = [{"rfilename": name, "size": sizes.get(name, len(data))} for name, data in files.items()]
    return {"_id": "0", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0}
