"""Commands that make an adapter and measure it: demo, train, status, eval, info, pretrain."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from msta.cli import options as opt
from msta.cli.options import (
    app,
    checked,
    computes,
    console,
    data_first,
    data_settings,
    load_model,
    print_facts,
    print_result,
    say,
)
from msta.errors import ConfigError

command = partial(app.command, rich_help_panel="Adapt")


@command(epilog="Example: msta demo --out msta-demo")
@computes("device")
def demo(
    out: Annotated[Path, typer.Option(help="A new folder.")] = Path("msta-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of clips, splits and training.")] = 0,
) -> None:
    """See it work in a few minutes: clips, zero-shot, few-shot, base-to-novel, one prediction, a report.

    Needs nothing but this package: DIR/results.json holds the figures, DIR/report.html shows them.
    """
    from msta.demo import demo as run

    run(out, console, seed=seed)


@command(epilog="Example: msta train clips/ --shots 8 --out runs/first train.lr=5e-4")
@computes("device")
def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA] [KEY=VALUE]", help="The data, unless --data names them; then any setting."),
    ] = None,
    data: opt.Data = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    method: opt.Method = None,
    shots: opt.Shots = None,
    preset: opt.Preset = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for adapter/, metrics.json and logs.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    or_resume: Annotated[
        bool,
        typer.Option("--or-resume", help="Continue if --out holds a run already: for schedulers that restart jobs."),
    ] = False,
    auto_batch: Annotated[
        bool, typer.Option("--auto-batch", help="If memory runs out, compute half as many clips at a time.")
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Measure by cross-validation with so many folds, then train on all clips."),
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Measure on held-out clips, then train on all clips.")] = False,
) -> None:
    """Train an adapter on your clips, test it, and save it.

    Splits: train/ val/ test/ folders if the data has them, else made by a seed and written to RUN/split.csv.
    RUN/metrics.json holds top-1 and top-5 in percent on the test clips, and RUN/report.html shows what was confused.
    Several processes (torchrun -m msta train …, accelerate launch -m msta train …) share the work: docs/training.md.
    """
    from msta.config import make_config, read_config
    from msta.training.fit import fit

    data, overrides = data_first(data, arguments)
    if resume is not None:
        if overrides or data or backbone or base or method or shots or preset or out or or_resume or folds or refit:
            raise ConfigError("--resume takes its settings from the run; give nothing else but --auto-batch")
        config = read_config(resume / "config.yaml")
        if auto_batch:
            config = config.model_copy(update={"train": config.train.model_copy(update={"auto_batch": True})})
        fit(config, resume, console, resume=True)
        return
    if data is None or out is None:
        missing = [name for name, value in (("--data", data), ("--out", out)) if value is None]
        raise ConfigError(f"missing {', '.join(missing)}")
    settings = {"data.path": str(data), "data.shots": shots, "backbone": backbone, "base": base}
    settings |= {"train.folds": folds, "train.refit": refit or None, "train.auto_batch": auto_batch or None}
    config = make_config(preset or "small", settings, overrides, method=method)
    fit(config, out, console, or_resume=or_resume)


@command(epilog="Example: msta status runs/first --watch")
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of the run.")],
    watch: Annotated[bool, typer.Option("--watch", help="Print it again and again until the run has ended.")] = False,
    as_json: opt.AsJSON = False,
) -> None:
    """Show the state of a training run from another terminal: progress, pace, best so far, errors, alive or dead.

    The exit code is 1 if it failed or died.
    """
    import time

    from msta.training.status import describe, read_status

    while True:
        found = read_status(run)
        print_result(found, as_json, "\n".join(describe(found)))
        if not watch or found["state"] != "running":
            break
        time.sleep(2)
        if not as_json:
            print()
    if found["state"] in ("failed", "dead"):
        raise typer.Exit(1)


@command(name="eval", epilog="Example: msta eval RUN/split.csv --adapter RUN --json")
@computes("device", "precision")
def eval_(
    arguments: opt.DataArguments = None,
    data: opt.Data = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    adapter: opt.Adapter = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all. Default: test if there is one.")] = None,
    clips: opt.TestClips = 1,
    crops: opt.TestCrops = 1,
    new_classes: Annotated[bool, typer.Option(help="Measure on the data's classes, not the adapter's.")] = False,
    template: opt.Template = None,
    predictions: Annotated[Path | None, typer.Option(help="A Parquet file to write every prediction to.")] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Measure top-1 and top-5, in percent, of an adapter or of a backbone as it is.

    If the data is the split.csv of a run, its test clips are measured.
    """
    from msta.evaluation.evaluate import evaluate_on
    from msta.evaluation.metrics import in_words
    from msta.settings import EvalSettings

    views = checked(EvalSettings, clips=clips, crops=crops).views()
    metrics = evaluate_on(
        load_model(backbone, base, adapter), data_settings(data, arguments).read(), split=split, views=views,
        new_classes=new_classes, console=console, template=template, predictions=predictions,
    )  # fmt: skip
    for path, reason in metrics["unreadable"].items():
        say(f"left out: {path}: {reason}")
    print_result(metrics, as_json, f"{in_words(metrics)} of {metrics['clips']} clips ({metrics['split']})")


@command(
    epilog="Example: msta info runs/first; msta info --preset paper:base-to-novel "
    "--backbone random:viclip-b16; msta info --plan clips/ --shots 8 cache.views=10"
)
def info(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET | KEY=VALUE",
            help="A backbone, an adapter, a run; with --plan the data; with --preset, --method, --plan settings.",
        ),
    ] = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    plan: Annotated[bool, typer.Option("--plan", help="What msta train would need with these options.")] = False,
    adapter: opt.Adapter = None,
    data: opt.Data = None,
    method: opt.Method = None,
    shots: opt.Shots = None,
    preset: opt.Preset = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="With --plan, a card like cuda:A100: the least that the run would need on it, by its data sheet."
        ),
    ] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Describe this installation, a backbone, or an adapter (what is trained, in which backbone, for which classes).

    With --preset or --method: what such a training trains in the backbone, and its recipe.
    With --plan: parameters, arithmetic, memory and time of a training run, before it starts.
    """
    if device and not plan:
        raise ConfigError("--device: goes with --plan")
    if adapter and (plan or preset or method):
        raise ConfigError("--adapter: is described by itself, without --plan, --preset and --method")
    if plan:
        from msta.config import make_config
        from msta.training.plan import plan as planned

        data, overrides = data_first(data, arguments)
        if data is None:
            raise ConfigError("missing --data")
        settings = {"data.path": str(data), "data.shots": shots, "backbone": backbone, "base": base}
        described = planned(make_config(preset or "small", settings, overrides, method=method), device)
    elif preset or method:
        from msta.config import make_config
        from msta.inference.describe import describe_recipe

        if data or shots:
            raise ConfigError("--data and --shots go with --plan")
        settings = {"data.path": ".", "backbone": backbone, "base": base}
        described = describe_recipe(make_config(preset or "small", settings, arguments or [], method=method))
    else:
        from msta.inference.describe import describe

        targets = [*(arguments or ()), *([str(adapter)] if adapter else ())]
        if len(targets) > 1 or data or shots:
            raise ConfigError("one target at a time; --data and --shots go with --plan")
        described = describe(targets[0] if targets else None, backbone, base)
    print_facts(described, as_json)


@command(epilog="Example: msta backbones; msta backbones viclip-b16; msta train --backbone viclip-b16 …")
def backbones(
    name: Annotated[str | None, typer.Argument(help="A name in the list, or a Hub id, to fetch and check.")] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """List trained backbones: addresses, sizes, licences and purposes. With a name: fetch it."""
    from msta.backbone.checkpoints import fetch
    from msta.backbone.published import PUBLISHED
    from msta.evaluation.tables import Column, Table

    if name is not None:
        path = str(fetch(name))
        print_result({"path": path}, as_json, path)
        return
    rows = [{"name": short, **vars(entry)} for short, entry in PUBLISHED.items()]
    columns = (
        Column("--backbone", "name"), Column("MB", "megabytes", ",d"), Column("GFLOP per clip", "gflop", ",d"),
        Column("licence", "licence"), Column("for", "advice"), Column("on the Hub", "hub"),
    )  # fmt: skip
    print_result(rows, as_json, Table(columns, rows).markdown())


@command(epilog="Example: msta pretrain --out runs/toy")
def pretrain(
    out: Annotated[
        Path,
        typer.Option(help="A folder for clips, logs, state and, at the end, backbone/. If it exists, continue there."),
    ],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps. Default: 4,000; with --start 3,000.")
    ] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Clips of MotionWorld to draw. Default: 80,000.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of clips, weights and order.")] = 0,
    start: Annotated[str, typer.Option(help="A backbone to continue from, such as toy. Default: random weights.")] = "",
    frame_wise: Annotated[
        bool, typer.Option("--frame-wise", help="Attention within frames, as in CLIP, which does not know their order.")
    ] = False,
) -> None:
    """Pretrain a small ViCLIP on MotionWorld, a synthetic world of captioned motion. Takes hours."""
    from msta.motionworld.pretrain import CONTINUED, PretrainConfig
    from msta.motionworld.pretrain import pretrain as run

    given: dict[str, Any] = dict(CONTINUED) if start else {}
    given |= {name: n for name, n in (("steps", steps), ("clips", clips)) if n is not None}
    run(
        PretrainConfig(seed=seed, start=start, attention="frame-wise" if frame_wise else "joint", **given), out, console
    )
