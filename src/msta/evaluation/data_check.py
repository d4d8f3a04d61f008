"""The page and the table of ``msta data check``, and what a text tower makes of the class names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from msta.adapters.task import DEFAULT_TEMPLATE, prompts
from msta.backbone.dual_encoder import DualEncoder
from msta.data.catalog import Catalog
from msta.data.check import Checked, Warning, thumbnail
from msta.data.video_file import DecodeError
from msta.evaluation.figures import film_strip
from msta.evaluation.report import write_page
from msta.evaluation.tables import Column, Table

_SHOWN = 4  # clips per class on the page


@torch.no_grad()
def read_alike(backbone: DualEncoder, classes: Sequence[str]) -> list[Warning]:
    """Class names that a text tower hardly tells apart.

    Their prompts' scores by each other, cosines times the backbone's scale, are less than 1 below those by themselves:
    were one the video, the other would be more than a third as likely.
    """
    ids = backbone.tokenize(list(prompts(tuple(classes), DEFAULT_TEMPLATE))).to(backbone.logit_scale.device)
    text = F.normalize(backbone.encode_text(ids).float(), dim=-1)
    apart = backbone.logit_scale.exp() * (1 - text @ text.T)
    pairs = [(classes[i], classes[j]) for i, j in (apart < 1).triu(1).nonzero().tolist()]
    return [
        Warning("names", f"{one!r} and {other!r} read almost alike to {backbone.source}; name what sets them apart.")
        for one, other in pairs
    ]


def table(checked: Checked) -> Table:
    """One row per class, for a terminal or a page."""
    rows = [
        row | {"sizes": _counts(row["sizes"]), "rates": _counts(row["rates"]), "lengths": _lengths(row)}
        for row in checked.classes
    ]
    splits = [Column(name, name, "d") for name in ("train", "val", "test") if any(row[name] for row in rows)]
    columns = [
        Column("class", "class"), Column("clips", "clips", "d"), *splits, Column("unreadable", "unreadable", "d"),
        Column("seconds", "seconds", ".1f"), Column("each", "lengths", ">"), Column("pixels", "sizes"),
        Column("frames/s", "rates"),
    ]  # fmt: skip
    return Table(columns, rows, "Classes")


def write_check(out: Path, catalog: Catalog, checked: Checked) -> None:
    """A page with the table, the warnings, and pictures of some clips of each class."""
    clips = defaultdict(list)
    for clip in catalog.clips:
        clips[clip.label].append(clip)
    pictures: dict[str, Path | bytes] = {}
    sections: list[dict[str, Any]] = []
    for label, name in enumerate(catalog.classes):
        shown: list[tuple[str, str]] = []
        for clip in clips[label]:
            if len(shown) == _SHOWN:
                break
            try:
                pictures[f"clip{len(pictures)}"] = film_strip(thumbnail(clip))
            except DecodeError:
                continue
            shown.append((f"clip{len(pictures) - 1}", Path(clip.name).name))
        sections.append({"class": name, "clips": shown})
    write_page(
        out, "data.html", pictures, source=catalog.source, table=table(checked), warnings=checked.warnings,
        sections=sections,
    )  # fmt: skip


def _counts(found: dict[str, int]) -> str:
    """ "128x128 (7), 64x64"; the count is left out if all are alike."""
    some = [name if len(found) == 1 else f"{name} ({n})" for name, n in list(found.items())[:3]]
    return ", ".join(some) + (" …" if len(found) > 3 else "")


def _lengths(row: dict[str, Any]) -> str:
    if row["shortest"] is None:
        return ""
    low, high = (f"{row[name]:.1f}" for name in ("shortest", "longest"))
    return low if low == high else f"{low} – {high}"
