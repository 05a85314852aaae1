"""A web server for tests, which serves a folder as it is told: well, or with a fault."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Web:
    """The folder ``root`` at ``url``; ``fault`` may answer a request itself, and says whether it has."""

    def __init__(self, url: str, root: Path):
        self.url, self.root = url, root
        self.knows_ranges = True
        self.fault: Callable[[Any, bytes], bool] = lambda request, body: False
        self.asked: Counter[str] = Counter()


@contextmanager
def serving(root: Path) -> Iterator[Web]:
    """Within, a server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            web.asked[f"{self.command} {self.path}"] += 1
            body = self.body()
            try:
                if not web.fault(self, body or b""):
                    self.send_error(404) if body is None else self.answer(body)
            except OSError:  # the client has had enough
                self.close_connection = True

        def body(self) -> bytes | None:
            path = web.root / self.path.lstrip("/")
            return path.read_bytes() if path.is_file() else None

        def part(self, body: bytes) -> tuple[bytes, int]:
            words = self.headers.get("Range", "")
            if not words or not web.knows_ranges:
                return body, 200
            first, last = words.removeprefix("bytes=").split("-")
            return body[int(first) : int(last or len(body)) + 1], 206

        def answer(self, body: bytes) -> None:
            part, status = self.part(body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            if status == 206:
                first = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(body)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = Web(f"http://127.0.0.1:{server.server_address[1]}", root)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def hang(request: Any, body: bytes) -> bool:
    """Take the request and say nothing."""
    time.sleep(1.5)
    request.close_connection = True
    return True


def fail(request: Any, body: bytes) -> bool:
    """Say that there is no service now."""
    request.send_error(503)
    return True


def cut(request: Any, body: bytes) -> bool:
    """Promise more than is sent."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: len(body) // 2])
    request.close_connection = True
    return True


def trickle(request: Any, body: bytes) -> bool:
    """Send a byte now and then."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    for at in range(100):
        request.wfile.write(body[at : at + 1])
        request.wfile.flush()
        time.sleep(0.02)
    request.close_connection = True
    return True


def change(request: Any, body: bytes) -> bool:
    """Send something else each time."""
    request.answer(body[:-8] + time.time_ns().to_bytes(8, "little"))
    return True


def refuse(request: Any, body: bytes) -> bool:
    """Ask for credentials."""
    request.send_error(403)
    return True
