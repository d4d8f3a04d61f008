"""An endpoint with OpenAI's protocol: its address and key, and the meaning of its errors."""

from __future__ import annotations

import contextlib
import email.utils
import os
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from msta.errors import ConfigError

OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """A server to ask, with its model and key.

    Attributes:
        url: the base URL, which mostly ends in /v1; see :func:`endpoint`.
        model: the server's name for it.
        key: None if the server needs none. It is sent to the server and nowhere else.
        key_from: the environment variable that held the key, for messages.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    key_from: str = KEY

    @property
    def secret(self) -> str:
        """The key, if it is a real one. Some servers get a word like "EMPTY", which may occur in a sentence."""
        return self.key if self.key is not None and len(self.key) >= 12 else ""

    @property
    def host(self) -> str:
        """The name of the server, for messages."""
        return urlsplit(self.url).netloc


def endpoint(url: str | None, model: str | None, key_from: str = KEY) -> Endpoint:
    """The endpoint, with the key from the environment.

    Args:
        url: None: the environment's OPENAI_BASE_URL, else OpenAI. A URL without a path gets "/v1".
        model: its name.
        key_from: the environment variable that holds the key.

    Raises:
        ConfigError: there is no model, or no key for OpenAI; or the URL is not valid or holds a password.
    """
    url = url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError("--endpoint: expected a URL such as http://localhost:11434/v1")
    if parts.username or parts.password or parts.query:
        raise ConfigError(f"--endpoint: give the key in the environment variable {key_from}, not in the URL")
    if not model:
        raise ConfigError("missing --model; or say --template for sentences without a language model")
    key = os.environ.get(key_from, "").strip() or None
    if key is None and parts.hostname == urlsplit(OPENAI).hostname:
        raise ConfigError(
            f"the environment variable {key_from} is not set; a server of your own may need no key: see --endpoint"
        )
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {key_from} holds characters that no key has")
    return Endpoint(url.rstrip("/") + ("" if parts.path.strip("/") else "/v1"), model, key, key_from)


def import_openai() -> Any:
    """The openai client, an optional dependency.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ConfigError("msta describe needs the openai client: pip install 'msta[llm]'") from error
    return openai


# ---------------------------------------------------------------- errors, of whatever server


def retry_after(headers: Any) -> float | None:
    """The seconds that the server asks to wait."""
    value = str(headers.get("retry-after", "")).strip()
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if seconds == seconds else None
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _detail(error: Any) -> dict[str, Any]:
    """The content of an error's body. The client has already unwrapped an object under the key "error"."""
    return error.body if isinstance(error.body, dict) else {}


def code_of(error: Any) -> str:
    """The server's short name for an error."""
    return str(_detail(error).get("code") or _detail(error).get("type") or "")


def message_of(error: Any) -> str:
    """The server's error message. It may contain anything, even the key that was sent."""
    detail = _detail(error)
    return str(detail.get("message") or detail.get("detail") or detail.get("error") or "no reason given")


def about_format(error: Any) -> bool:
    """Whether the server refuses structured output."""
    said = f"{message_of(error)} {_detail(error).get('param')}".lower()
    return any(word in said for word in ("response_format", "json_schema", "json_object", "schema", "structured"))


def cause_of(error: Any) -> str:
    """The class name of the error that made a connection fail. Its text is not used: it might quote a header."""
    return type(error.__cause__ or error).__name__


def nobody_there(error: Any) -> bool:
    """Whether no server listens at the address, or the host is unknown."""
    return cause_of(error) in ("ConnectError", "UnsupportedProtocol", "ProxyError")
