"""A hub on this machine: as much of the Hugging Face hub's API as downloads need."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Repository:
    """What the hub has under a name.

    Attributes:
        folder: Its files.
        commit: Of all of them; "main" and ``tags`` stand for it.
        tags: More names of the commit.
        gated: Whether the files are for those only who have accepted a licence.
    """

    folder: Path
    commit: str = "0" * 40
    tags: tuple[str, ...] = ()
    gated: bool = False


@dataclass
class Hub:
    """A running hub.

    Attributes:
        url: For HF_ENDPOINT.
        asked: The paths of all requests.
    """

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(repositories: Mapping[str, Repository]) -> Iterator[Hub]:
    """Runs a hub with these repositories, by ``owner/name``."""
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.reply(with_body=False)

        def do_GET(self) -> None:
            self.reply(with_body=True)

        def reply(self, *, with_body: bool) -> None:
            hub.asked.append(self.path)
            status, headers, body = _answer(self.path.partition("?")[0], repositories)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _answer(path: str, repositories: Mapping[str, Repository]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a path."""
    api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    name, revision = (file[1], file[2]) if file else (api[1], api[3] or "main") if api else ("", "")
    found = repositories.get(name)
    if found is None:
        return 404, {"X-Error-Code": "RepoNotFound"}, b""
    if revision not in ("main", found.commit, *found.tags):
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    paths = [path for path in sorted(found.folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(found.folder).as_posix(): path.read_bytes() for path in paths}
    if api:
        said: Any = {"id": name, "sha": found.commit, "siblings": [{"rfilename": f} for f in files]}
        if api[2] == "tree":
            said = [
                {"type": "file", "path": path, "size": len(body), "oid": _oid(body)}
                for path, body in files.items()
            ]
        return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()
    assert file is not None
    if found.gated:
        return 403, {"X-Error-Code": "GatedRepo"}, b""
    if file[3] not in files:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    body = files[file[3]]
    return 200, {"X-Repo-Commit": found.commit, "ETag": f'"{_oid(body)}"'}, body


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
