"""A server of OpenAI's protocol on loopback that misbehaves as it is told to."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any]
"""What to do about a request: "status", "headers", "body" (bytes or JSON), "after" (seconds), "cut" (bytes sent)."""


class Asked:
    """A request, as the server sees it."""

    def __init__(self, headers: Any, body: dict[str, Any]) -> None:
        self.headers, self.body = headers, body
        text = body["messages"][-1]["content"]
        self.name = json.loads(re.search(r'^Action: (".*")$', text, re.MULTILINE)[1])
        self.spatial, self.temporal = map(int, re.search(r'exactly (\d+) "spat.*exactly (\d+) "temp', text).groups())
        self.kept = re.findall(r"^- (.*)$", text, re.MULTILINE)

    def answer(self, spatial: int | None = None, temporal: int | None = None) -> dict[str, list[str]]:
        """A good answer: as many new sentences as were asked for, or as is said here."""
        start = len(self.kept)
        return {
            "spatial": [
                f"A video of {self.name}, side {start + i}."
                for i in range(self.spatial if spatial is None else spatial)
            ],
            "temporal": [
                f"Step {start + i} of {self.name}." for i in range(self.temporal if temporal is None else temporal)
            ],
        }


def completion(content: Any, **message: Any) -> Reply:
    """A chat completion with this text, or JSON, as its content."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {"body": {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}}


def failure(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it."""
    return {
        "status": status,
        "body": {"error": {"message": message, "code": code, "type": None}},
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
    }


class LLM:
    """The server, from ``with`` to its end.

    Args:
        behave: (request, how often the class was asked about before) -> reply; None for a good one.

    Attributes:
        asked: every request.
        paid: class names of the answers that were sent to the end, in order.
    """

    def __init__(self, behave: Callable[[Asked, int], Reply | None] = lambda asked, before: None) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self.paid: list[str] = []
        self.lock = threading.Lock()

    def __enter__(self) -> LLM:
        llm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                asked = Asked(self.headers, json.loads(content))
                with llm.lock:
                    before = sum(a.name == asked.name for a in llm.asked)
                    llm.asked.append(asked)
                reply = llm.behave(asked, before) or completion(asked.answer())
                time.sleep(reply.get("after", 0))
                body = reply.get("body", {})
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                status = reply.get("status", 200)
                try:
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    for name, value in reply.get("headers", {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    if "cut" in reply:
                        self.wfile.write(body[: reply["cut"]])
                        self.close_connection = True
                        return
                    if status == 200:
                        with llm.lock:
                            llm.paid.append(asked.name)
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the client has gone

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"
