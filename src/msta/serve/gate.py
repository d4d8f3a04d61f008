"""Middleware in front of the routes: it checks keys, the number of requests at a time, and their size."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msta.serve.limits import Limits, Refusal

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})
HEADER_BYTES = 16_384


class Gate:
    """Refuses a request before its body is read if possible. A body without a stated length is counted as it arrives.

    Args:
        app: the routes.
        limits: see :class:`Limits`.
        keys: a request needs one of them. No keys: everyone may use the service.
    """

    def __init__(self, app: ASGIApp, limits: Limits, keys: Sequence[str]) -> None:
        self.app, self.limits = app, limits
        self._keys = [key.encode() for key in keys]
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check_size(scope)
            if scope["path"] not in OPEN_PATHS:
                self._check(dict(scope["headers"]))
        except Refusal as refusal:
            await _refuse(refusal, send)
            return
        self._inside += 1
        try:
            await self._within_time(scope, receive, send)
        finally:
            self._inside -= 1

    def _check_size(self, scope: Scope) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
            raise Refusal(431, f"the limit of all headers is {HEADER_BYTES:,} bytes")
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated[:20]) > self.limits.body_bytes:
            raise Refusal(413, f"the limit of a request is {self.limits.body_bytes:,} bytes")

    def _check(self, headers: dict[bytes, bytes]) -> None:
        if self._keys and not self._known(headers.get(b"authorization", b"")):
            reason = "wrong key" if b"authorization" in headers else "no key"
            raise Refusal(401, f"{reason}: send Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
        if self._inside >= self.limits.concurrent + self.limits.queue:
            raise Refusal(429, f"{self._inside} requests are waiting already; try again", {"Retry-After": "1"})
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "compressed bodies are not taken", {"Accept-Encoding": "identity"})

    def _known(self, header: bytes) -> bool:
        """Whether it is one of the keys. The time this takes does not depend on the key."""
        scheme, _, given = header.partition(b" ")
        return scheme.lower() == b"bearer" and sum([hmac.compare_digest(given.strip(), key) for key in self._keys]) > 0

    async def _within_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limits.body_bytes:
                raise Refusal(413, f"the limit of a request is {self.limits.body_bytes:,} bytes")
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await asyncio.wait_for(self.app(scope, counted, noted), self.limits.request_seconds)
        except asyncio.TimeoutError:
            if begun:
                raise
            await _refuse(Refusal(504, f"not done within {self.limits.request_seconds:g} s"), send)


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"detail": refusal.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    headers |= refusal.headers or {}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": raw})
    await send({"type": "http.response.body", "body": body})
