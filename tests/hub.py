"""A stand-in for the Hugging Face Hub's HTTP API, as far as sharing an adapter needs it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class Hub:
    """Its repositories, and the requests that it got.

    Attributes:
        token: the only one that may write.
        files: content by "USER/NAME/FILE".
        private: the repositories that were created as private.
        seen_tokens: of all requests.
    """

    token: str
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    seen_tokens: set[str] = field(default_factory=set)


@contextmanager
def running(token: str) -> Iterator[Hub]:
    """Yield a Hub that listens on a port of this machine."""
    hub = Hub(token)

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        if self._token() != self.state.token:
            self._json(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.state.private.add(name)
            self._json(200, {"url": f"{self.state.url}/{name}", "id": "1", "name": name})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            self._json(200, {"files": modes})
        elif "/commit/" in self.path:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.state.files[f"{repository}/{line['value']['path']}"] = content
            url = f"{self.state.url}/{repository}/commit/{COMMIT}"
            self._json(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})
        else:  # checks of the card's metadata
            self._json(200, {"errors": [], "warnings": []})

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self._token()
        repository, _, rest = self.path.removeprefix("/").partition("/resolve/")
        content = self.state.files.get(f"{repository}/{rest.partition('/')[2]}")
        if content is None:
            self._json(404, {"error": "Not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest()
        self._reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body=body)

    def _token(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.state.seen_tokens.add(token)
        return token

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", **(headers or {})}
        self._reply(status, json.dumps(value).encode(), headers, body=self.command != "HEAD")

    def _reply(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)
