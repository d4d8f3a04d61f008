"""An HTML page that contains its pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from msta.files import write_bytes


@cache
def templates(room: str) -> jinja2.Environment:
    """The HTML templates of a room of this package. They escape everything that comes from outside."""
    loader = jinja2.PackageLoader(f"msta.{room}")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def write_page(path: Path, template: str, pictures: Mapping[str, Path | bytes], **content: Any) -> None:
    """Fill an HTML template of this package. The page needs no other file.

    Args:
        path: of the page.
        template: name of a file in ``evaluation/templates``.
        pictures: name -> PNG or JPEG, put into the page under ``pictures.NAME``.
        content: the other values that the template uses.
    """
    inside = {name: embedded(picture) for name, picture in pictures.items()}
    page = templates("evaluation").get_template(template).render(pictures=inside, **content)
    write_bytes(path, page.encode(errors="backslashreplace"))  # names that are no text


def embedded(picture: Path | bytes) -> str:
    """A PNG or JPEG as a data URI."""
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
