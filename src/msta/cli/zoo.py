"""msta zoo: lists of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msta.cli import options as opt
from msta.cli.options import app, print_result

zoo_app = typer.Typer(no_args_is_help=True, help="List adapters in a folder or on the Hub, and get one of them.")
app.add_typer(zoo_app, name="zoo", rich_help_panel="Use")

Where = Annotated[str, typer.Argument(help="A folder of adapters or runs, or owner/name on the Hub.")]


@zoo_app.command(epilog="Example: msta zoo make runs/")
def make(folder: Annotated[Path, typer.Argument(help="A folder of adapters, or of runs.")]) -> None:
    """Write FOLDER/zoo.json: name, backbone, classes, figures and SHA-256 of each adapter in the folder."""
    from msta.adapters.zoo import ZOO, write_zoo

    print(f"{len(write_zoo(folder))} adapters in {folder / ZOO}")


@zoo_app.command(name="list", epilog="Example: msta zoo list runs/")
def list_(where: Where, as_json: opt.AsJSON = False) -> None:
    """List the adapters of a zoo."""
    from dataclasses import asdict

    from msta.adapters.zoo import read_zoo
    from msta.evaluation.tables import Column, Table

    entries = read_zoo(where)
    rows = [{**vars(entry), "count": len(entry.classes), "some": ", ".join(entry.classes[:4])} for entry in entries]
    columns = (
        Column("name", "name"), Column("backbone", "backbone"), Column("method", "method"),
        Column("top-1, %", "top1", ".1f"), Column("clips", "clips", "d"), Column("classes", "count", "d"),
        Column("such as", "some"),
    )  # fmt: skip
    print_result([asdict(entry) for entry in entries], as_json, Table(columns, rows).markdown())


@zoo_app.command(epilog="Example: msta zoo get lab/hands swipes --out swipes; msta predict clip.mp4 --adapter swipes")
def get(
    where: Where,
    name: Annotated[str, typer.Argument(help="The name of an adapter in its list.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Copy an adapter of a zoo, and check it against the SHA-256 in the list."""
    from msta.adapters.zoo import get as run

    entry = run(where, name, out)
    print(f"{out}: {entry.method} of {entry.backbone}, {len(entry.classes)} classes")
