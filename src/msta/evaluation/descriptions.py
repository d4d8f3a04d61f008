"""``msta descriptions check``: what :mod:`msta.descriptions.check` found, printed and as a page with heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msta.adapters.task import prompts
from msta.backbone.dual_encoder import DualEncoder
from msta.descriptions.bank import DescriptionBank
from msta.descriptions.check import Check, check
from msta.errors import ConfigError, one_line
from msta.evaluation.figures import WIDTH, blank
from msta.evaluation.fonts import png
from msta.evaluation.report import write_page
from msta.files import cache_folder, refuse_existing

if TYPE_CHECKING:
    import torch

_SHOWN = 30
"""Classes in a heat map, and bad sentences on a terminal."""


def check_bank(
    path: Path, backbone: DualEncoder, classes: Sequence[str] | None, *, template: str, out: Path | None = None
) -> dict[str, Any]:
    """Check a bank, or some of its classes, and write the page.

    Args:
        path: of the bank.
        backbone: the frozen one.
        classes: the classes to check; None: all.
        template: the classes' own prompt.
        out: the page to write, which must not exist; None: no page.

    Returns:
        "bad": sentences, the worst first; "classes": for each its anchors' cosines; "irregular"; "sentences": how many;
        "bank", "backbone", "template", "page".

    Raises:
        MSTAError: no bank, classes it lacks, ``out`` exists.
    """
    if "{}" not in template:
        raise ConfigError(f"--template: has no {{}} for the class name, got {template!r}")
    if out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--out: expected a name that ends in .html, got {out.name!r}")
        refuse_existing(out)
    bank = DescriptionBank.load(path)
    bank = bank if classes is None else bank.subset(classes)
    found = check(bank, backbone, prompts(tuple(bank.classes), template), cache=cache_folder("anchors"))
    result = {
        "bank": str(path),
        "backbone": str(backbone.source),
        "template": template,
        "sentences": found.sentences,
        "bad": [{"class": b.name, "kind": b.kind, "sentence": b.sentence, "why": b.why} for b in found.bad],
        "irregular": found.irregular,
        "classes": _classes(found),
        "page": None if out is None else str(out),
    }
    if out is not None:
        _write(out, found, result)
    return result


def print_check(result: dict[str, Any]) -> None:
    """Bad sentences, then the classes, the one whose anchors fit worst first."""
    bad, classes = result["bad"], result["classes"]
    print(f"{len(bad) or 'no'} faults in {result['sentences']} sentences" + (":" if bad else ""))
    for each in bad[:_SHOWN]:
        print(one_line(f"  {each['class']}, {each['kind']}: {each['sentence']}"))
        print(one_line(f"      {each['why']}"))
    if len(bad) > _SHOWN:
        print(f"  … and {len(bad) - _SHOWN} more: --json or --out lists them all")
    for odd in result["irregular"]:
        print(one_line(f"Irregular: {odd}"))
    print("\nCosine of the classes' anchors to their own prompt, and to the nearest other one:")
    for each in classes[:_SHOWN]:
        kinds = [
            f"{kind} {each[kind]['own']:.2f}, {each[kind]['other']:.2f} {each[kind]['nearest']!r}"
            for kind in ("spatial", "temporal")
            if kind in each
        ]
        print(one_line(f"  {each['class']}: {'; '.join(kinds)}"))
    if len(classes) > _SHOWN:
        print(f"  … and {len(classes) - _SHOWN} more, which are more at home")
    if result["page"]:
        print(f"\nLook at {result['page']}")


def _classes(found: Check) -> list[dict[str, Any]]:
    """For each class and kind "own", "other", "nearest"; sorted by the smallest lead of own over other."""
    rows: list[dict[str, Any]] = [{"class": name} for name in found.classes]
    for kind in found.distances:
        others, which = kind.nearest()
        for row, own, other, label in zip(rows, kind.own().tolist(), others.tolist(), which.tolist(), strict=True):
            row[kind.kind] = {"own": round(own, 4), "other": round(other, 4), "nearest": found.classes[label]}
    return sorted(rows, key=lambda row: min(row[k.kind]["own"] - row[k.kind]["other"] for k in found.distances))


def _write(out: Path, found: Check, result: dict[str, Any]) -> None:
    content = {name: value for name, value in result.items() if name != "template"} | {"prompt": result["template"]}
    shown = [found.classes.index(row["class"]) for row in result["classes"][:_SHOWN]]
    write_page(out, "descriptions.html", _heat_maps(found, shown), **content, shown=len(shown))


def _heat_maps(found: Check, shown: Sequence[int]) -> dict[str, bytes]:
    """A heat map per kind: anchors down, prompts across, of the shown classes. As wide as a telephone shows well."""
    names = [_short(found.classes[label]) for label in shown]
    parts: list[torch.Tensor] = [kind.cosines[shown][:, shown] for kind in found.distances]
    low, high = min(float(p.min()) for p in parts), max(float(p.max()) for p in parts)
    pictures: dict[str, bytes] = {}
    for kind, part in zip(found.distances, parts, strict=True):
        figure, (axes,) = blank(max(WIDTH, 0.2 * len(shown) + 1.9), max(WIDTH, 0.2 * len(shown) + 1.9))
        image = axes.imshow(part.numpy(), vmin=low, vmax=high, cmap="viridis")
        axes.set_title(f"{kind.kind} anchors", fontsize=10)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_xlabel("prompts", fontsize=9)
        figure.colorbar(image, shrink=0.6, label="cosine")
        pictures[kind.kind] = png(figure)
    return pictures


def _short(name: str) -> str:
    """For an axis."""
    return one_line(name if len(name) <= 24 else name[:23] + "…")
