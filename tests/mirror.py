"""A small mirror of the model hub: a real HTTP server that speaks what huggingface_hub asks for, and no more.

Repositories are folders; each state of one is a commit.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]

_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<rev>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<rev>[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<name>.+)")


@dataclass
class Mirror:
    """Repositories by name: commits with their files, the newest last."""

    url: str = ""
    commits: dict[str, dict[str, Files]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Every path that was asked for."""

    def push(self, repository: str, folder: Path) -> str:
        """A new commit with a folder's files; its hash."""
        files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        history = self.commits.setdefault(repository, {})
        commit = hashlib.sha1(repr((len(history), sorted(files))).encode()).hexdigest()
        history[commit] = files
        return commit

    def commit(self, repository: str, revision: str | None) -> str | None:
        """The hash that a revision means."""
        history = self.commits.get(repository, {})
        if revision in (None, "main"):
            return next(reversed(history), None)
        return revision if revision in history else None


@contextmanager
def serving() -> Iterator[Mirror]:
    """An empty mirror at a free port."""
    mirror = Mirror()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: _Handler(mirror, *given))
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, mirror: Mirror, *given: object) -> None:
        self.mirror = mirror
        super().__init__(*given)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.mirror.asked.append(path)
        if match := _TREE.fullmatch(path) or _INFO.fullmatch(path) or _FILE.fullmatch(path):
            self._answer(match)
        else:
            self._send(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _answer(self, match: re.Match[str]) -> None:
        repository, found = match["repo"], match.groupdict()
        if repository not in self.mirror.commits:
            self._send(HTTPStatus.UNAUTHORIZED, code="RepoNotFound")  # as the hub does to those not logged in
            return
        commit = self.mirror.commit(repository, found.get("rev"))
        if commit is None:
            self._send(HTTPStatus.NOT_FOUND, code="RevisionNotFound")
            return
        files = self.mirror.commits[repository][commit]
        if match.re is _FILE:
            self._file(files.get(match["name"]), commit)
        elif match.re is _TREE:
            self._json([{"type": "file", "path": name, "size": len(b), "oid": _oid(b)} for name, b in files.items()])
        else:
            self._json({"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    def _file(self, content: bytes | None, commit: str) -> None:
        if content is None:
            self._send(HTTPStatus.NOT_FOUND, code="EntryNotFound")
        else:
            self._send(HTTPStatus.OK, content, {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"'})

    def _json(self, content: object) -> None:
        self._send(HTTPStatus.OK, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: HTTPStatus, body: bytes = b"", headers: dict[str, str] | None = None, *, code: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | ({"X-Error-Code": code} if code else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
