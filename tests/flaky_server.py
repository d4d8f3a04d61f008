"""A loopback HTTP server of a folder that misbehaves: it drops, delays, truncates, garbles, or is plainly down."""

from __future__ import annotations

import http.server
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FAULTS = ("drop", "delay", "truncate", "error", "garble", "wrong range", "stall")


class FlakyServer(http.server.ThreadingHTTPServer):
    """``url`` leads to ``folder``; ``counts`` says what happened, a fault or "sound", and "bytes" sent."""

    daemon_threads = True

    def __init__(self, folder: Path, faults: Sequence[str], rate: float, seed: int, ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.faults, self.rate, self.ranges = folder, list(faults), rate, ranges
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self) -> str:
        with self.lock:
            kind = self.random.choice(self.faults) if self.faults and self.random.random() < self.rate else "sound"
            self.counts[kind] += 1
            return kind

    def handle_error(self, request, client_address) -> None:
        """A client that hung up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyServer

    def do_GET(self) -> None:
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        start, end = 0, len(content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.server.ranges else None
        if asked:
            start, end = int(asked[1]), min(end, int(asked[2] or end - 1) + 1)
            if start >= len(content):
                self.send_error(416)
                return
        self._send(content, start, end, ranged=asked is not None)

    def _send(self, content: bytes, start: int, end: int, *, ranged: bool) -> None:
        fault, body = self.server.fault(), content[start:end]
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "mute":
            time.sleep(1.0)  # longer than the tests' patience
            return
        if fault == "error":
            self.send_error(503)
            return
        if fault == "delay":
            time.sleep(0.05)
        if fault == "garble":
            body = bytes(255 - byte for byte in body[:1]) + body[1:]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        if ranged:
            first = start + 1 if fault == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
        self.end_headers()
        if fault in ("truncate", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "stall":
                time.sleep(1.0)  # longer than the tests' patience
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "drip":
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)
        self.wfile.write(body)
        self.server.counts["bytes"] += len(body)

    def log_message(self, *arguments) -> None:
        """Nothing."""


@contextmanager
def serving(
    folder: Path, faults: Sequence[str] = (), *, rate: float = 0.5, seed: int = 0, ranges: bool = True
) -> Iterator[FlakyServer]:
    server = FlakyServer(folder, faults, rate, seed, ranges)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
