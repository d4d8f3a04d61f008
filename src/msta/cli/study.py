"""Commands for research: protocol, ablate, compare, bench."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from msta.cli import options as opt
from msta.cli.options import app, computes, console, integers, listed, load_model, print_facts, print_result
from msta.errors import ConfigError

command = partial(app.command, rich_help_panel="Study")


@command(
    epilog="Example: msta protocol few-shot --data clips/ --shots 2,4,8 --out runs/few-shot; "
    "msta protocol zero-shot --source clips/ --target ucf101=UCF-101/ --out runs/transfer; "
    "msta protocol report --out runs/few-shot"
)
@computes("device", "precision")
def protocol(
    name: Annotated[
        str, typer.Argument(help="zero-shot, few-shot, base-to-novel or supervised; report writes the pages again.")
    ],
    overrides: opt.Overrides = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]PATH[?setting=value&…]. Several with one NAME are its splits, which are averaged."),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="In the same form, the data that zero-shot trains on.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="In the same form, the data that zero-shot tests on; for base-to-novel, the novel classes."),
    ] = None,
    second: Annotated[
        list[str] | None,
        typer.Option(help="In the same form, data to test on too, to see what training made the model forget."),
    ] = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    adapter: opt.Adapter = None,
    method: Annotated[
        str, typer.Option("--methods", "--method", help="Names, separated by commas, the baseline first.")
    ] = "zero-shot,msta",
    shots: Annotated[
        str | None,
        typer.Option(help="Clips per class. Default: 2,4,8,16 for few-shot, 16 for base-to-novel, else all."),
    ] = None,
    seeds: opt.Seeds = "0,1,2",
    preset: Annotated[str, typer.Option(help="As for train; paper has a recipe for each protocol.")] = "small",
    published: Annotated[
        Path | None, typer.Option(help="JSON with other published figures, in addition to those of the package.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder. If it exists, finished runs in it are skipped.")] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Run one of the field's four protocols: splits, runs, tables with intervals, and a report to look at.

    --adapter is measured by zero-shot, in place of training on --source.
    Writes DIR/report.html, results.md, results.tex and results.json, and keeps every prediction. The checkpoint is
    selected on validation clips; train.watch_test=true also prints the authors' choice, by test clips, as test-leak.
    """
    from msta.studies.protocol_report import main_table, write_report
    from msta.studies.protocols import Request
    from msta.studies.running import run_protocol

    if out is None:
        raise ConfigError("missing --out")
    if name != "report":
        request = Request(
            name, tuple(data or ()), tuple(source or ()), tuple(target or ()), tuple(listed(method)),
            None if shots is None else integers(shots, "--shots"), adapter, tuple(second or ()),
            seeds=integers(seeds, "--seeds"), preset=preset, overrides=tuple(overrides or ()), backbone=backbone,
            base=base,
        )  # fmt: skip
        run_protocol(request, out, console)
    results = write_report(out, published)
    print_result(results, as_json, f"{main_table(results['rows']).markdown()}\nReport: {out / 'report.html'}")


@command(epilog="Example: msta ablate --data clips/ --shots 8 --axes dim,temporal,towers --out runs/ablation")
@computes("device", "precision")
def ablate(
    data: Annotated[str, typer.Option(help="[NAME=]PATH[?setting=value&…].")],
    out: Annotated[Path, typer.Option(help="A folder for runs, table and figures. If it exists, continue there.")],
    overrides: opt.Overrides = None,
    axes: Annotated[str | None, typer.Option(help="Axes to vary, separated by commas. Default: all.")] = None,
    novel: Annotated[bool, typer.Option("--novel", help="Train on half of the classes, measure both halves.")] = False,
    shots: Annotated[int | None, typer.Option(min=1, help="Training clips per class. Default: as for train.")] = None,
    seeds: opt.Seeds = "0,1,2",
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: opt.AsJSON = False,
) -> None:
    """Vary MSTA's choices one at a time, over the values of the paper's own ablations.

    Axes: blocks, dim, scale, shared, temporal, towers, init, consistency, alpha, sentences, template.

    Each point is a run; OUT/ablation.md is the table, OUT/AXIS.png a figure each. Finished runs are not run again.
    """
    from msta.studies.ablation import Ablation, markdown
    from msta.studies.ablation import ablate as run

    asked = Ablation(
        data, novel, tuple(listed(axes)) if axes is not None else None, shots, seeds=integers(seeds, "--seeds"),
        preset=preset, overrides=tuple(overrides or ()), backbone=backbone, base=base,
    )  # fmt: skip
    result = run(asked, out, console)
    print_result(result, as_json, markdown(result))


@command(
    epilog="Example: msta compare --methods linear-probe,lora,full,msta --data clips/ --shots 8 "
    "--cases few-shot,base-to-novel --second other=more-clips/ --out runs/compared"
)
@computes("device", "precision")
def compare(
    data: Annotated[list[str], typer.Option(help="[NAME=]PATH[?setting=value&…]. May be given several times.")],
    out: Annotated[Path, typer.Option(help="A folder for runs, tables and figures. If it exists, continue there.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METHOD:]KEY=VALUE", help="Any setting, for all runs or for one method."),
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", "--method", help="Names, separated by commas. zero-shot is always included.")
    ] = "linear-probe,full,lora,mma,msta",
    cases: Annotated[str, typer.Option(help="few-shot, base-to-novel, or both.")] = "few-shot",
    shots: Annotated[int, typer.Option(min=1, help="Training clips per class.")] = 8,
    seeds: opt.Seeds = "0,1,2",
    second: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]PATH: data to test on too, to see what training made a model forget."),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Trials per method of a search on validation clips; 0: defaults.")
    ] = 8,
    schedule: Annotated[
        str, typer.Option(help="equal for all methods, or own: that of each method's authors.")
    ] = "equal",
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: opt.AsJSON = False,
) -> None:
    """Compare methods fairly: same clips, same views, same budget, settings searched on validation for each.

    Accuracy with intervals and paired tests, base-to-novel, forgetting, parameters, time, memory, size: in
    OUT/report.html, comparison.md and comparison.json. Finished runs are not run again.
    """
    from msta.studies.comparison import Comparison
    from msta.studies.comparison import compare as run
    from msta.studies.comparison_report import markdown

    common, own = _by_method(overrides or ())
    asked = Comparison(
        tuple(data), tuple(listed(methods)), tuple(listed(cases)), shots, tuple(second or ()), trials, schedule, own,
        seeds=integers(seeds, "--seeds"), preset=preset, overrides=common, backbone=backbone, base=base,
    )  # fmt: skip
    result = run(asked, out, console)
    print_result(result, as_json, f"{markdown(result)}\nReport: {out / 'report.html'}")


@command(epilog="Example: msta bench --backbone random:viclip-b16 --method msta --classes 51")
@computes("device", "precision")
def bench(
    backbone: Annotated[
        str, typer.Option(help="As for train. random:viclip-b16 has the right shape, on which the time depends.")
    ] = "toy",
    base: opt.Base = None,
    method: Annotated[str, typer.Option(help="As for train, with the defaults of its paper.")] = "msta",
    classes: Annotated[int, typer.Option(min=1, help="Class names per step.")] = 51,
    batch: Annotated[int, typer.Option(min=1, help="Clips per step.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 3,
    as_json: opt.AsJSON = False,
) -> None:
    """Measure a training step on this machine: without shortcuts, with them, and with the frozen prefix kept.

    A ViCLIP-B/16 takes minutes on a CPU. Decoding is not included; msta info --plan includes it, for a whole run.
    """
    from msta.training.cost import bench as run

    frozen = load_model(backbone, base, None).backbone
    print_facts(run(frozen, method, classes=classes, batch=batch, rounds=rounds), as_json)


def _by_method(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """The overrides of all runs, and those of one method, written METHOD:KEY=VALUE."""
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for override in overrides:
        method, colon, _ = override.partition("=")[0].partition(":")
        if colon:
            own.setdefault(method.strip(), []).append(override.partition(":")[2])
        else:
            common.append(override)
    return tuple(common), tuple((method, tuple(settings)) for method, settings in own.items())
