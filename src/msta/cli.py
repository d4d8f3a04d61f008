"""The command line: parse, call one function, print. No logic."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from msta.errors import ConfigError, Interrupted, MSTAError, one_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Adapt video-language models (CLIP, ViCLIP) to your own actions with a few labelled clips.",
    epilog="Start with: msta demo. Then: msta train --data FOLDER --out RUN, where FOLDER has a sub-folder a class.",
)
console = Console(stderr=True)

Backbone = Annotated[
    str | None,
    typer.Option(
        help="A directory, a file (.pt .pth .safetensors), a Hub id of a CLIP. Default: toy, which is built in."
    ),
]
Base = Annotated[
    str | None, typer.Option(help="The CLIP that a fine-tuned backbone without token embedding (ViFi-CLIP) began as.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from msta._version import __version__

        print(__version__)
        raise typer.Exit


@app.command(epilog="Example: msta demo --out msta-demo")
def demo(
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")] = Path("msta-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of clips, splits and training.")] = 0,
) -> None:
    """See it work in a few minutes: clips, zero-shot, few-shot, base-to-novel, one prediction, a report.

    Needs nothing but this package: DIR/results.json holds the figures, DIR/report.html shows them.
    """
    from msta.demo import demo as run

    run(out, console, seed=seed)


@app.command(epilog="Example: msta train --data clips/ --shots 8 --out runs/first train.lr=5e-4")
def train(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with a sub-folder a class; CSV of path,label.")] = None,
    backbone: Backbone = None,
    base: Base = None,
    method: Annotated[str | None, typer.Option(help="msta, zero-shot, full, lora, …: docs/methods.md.")] = None,
    shots: Annotated[int | None, typer.Option(help="Training clips a class. Default: all but those held out.")] = None,
    preset: Annotated[
        str, typer.Option(help="small: few clips; upper: and a large backbone; paper: the authors' recipe.")
    ] = "small",
    out: Annotated[Path | None, typer.Option(help="The run's directory: adapter/, metrics.json, logs.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    or_resume: Annotated[
        bool, typer.Option("--or-resume", help="Go on if --out holds a run already: for schedulers that start again.")
    ] = False,
    auto_batch: Annotated[
        bool, typer.Option("--auto-batch", help="When memory runs out, compute half as many clips at a time.")
    ] = False,
) -> None:
    """Train an adapter on your clips, test it, and save it.

    Splits: train/ val/ test/ folders if the data has them, else made by a seed and written to RUN/split.csv.
    RUN/metrics.json holds top-1 and top-5 in percent on the test clips. Several processes (torchrun -m msta train …,
    accelerate launch -m msta train …) share the work: docs/training.md.
    """
    from msta.config import make_config, read_config
    from msta.training.loop import train as run

    if resume is not None:
        if overrides or data or backbone or base or method or shots or out or or_resume:
            raise ConfigError("--resume takes its settings from the run; give nothing else but --auto-batch")
        config = read_config(resume / "config.yaml")
        if auto_batch:
            config = config.model_copy(update={"train": config.train.model_copy(update={"auto_batch": True})})
        run(config, resume, console, resume=True)
        return
    if data is None or out is None:
        missing = [name for name, value in (("--data", data), ("--out", out)) if value is None]
        raise ConfigError(f"missing {', '.join(missing)}")
    settings = {"data.path": str(data), "data.shots": shots, "backbone": backbone, "base": base}
    if auto_batch:
        settings["train.auto_batch"] = True
    run(make_config(preset, settings, overrides or [], method=method), out, console, or_resume=or_resume)


@app.command(epilog="Example: msta status runs/first --watch")
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's directory.")],
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until the run has ended.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Say how a training run is doing, from another terminal: progress, pace, best so far, errors, alive or dead.

    The exit code is 1 if it failed or died.
    """
    import time

    from msta.training.status import describe, read_status

    while True:
        found = read_status(run)
        if as_json:
            _print_json(found)
        else:
            print("\n".join(describe(found)), flush=True)
        if not watch or found["state"] != "running":
            break
        time.sleep(2)
        if not as_json:
            print()
    if found["state"] in ("failed", "dead"):
        raise typer.Exit(1)


@app.command(name="eval", epilog="Example: msta eval --data RUN/split.csv --adapter RUN/adapter --json")
def eval_(
    data: Annotated[Path, typer.Option(help="As for train. A run's split.csv measures on its test clips.")],
    backbone: Backbone = None,
    base: Base = None,
    adapter: Annotated[Path | None, typer.Option(help="An adapter's directory. Without: zero-shot.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all. Default: test if there is one.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Test clips a video.")] = 1,
    crops: Annotated[int, typer.Option(help="Test crops a clip: 1 or 3.")] = 1,
    new_classes: Annotated[bool, typer.Option(help="Measure on the data's classes, not the adapter's.")] = False,
    template: Annotated[
        list[str] | None, typer.Option(help='"a video of {}."; again: several, averaged. Else the adapter\'s.')
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="A Parquet file to write every prediction to.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Measure top-1 and top-5, in percent, of an adapter or of a backbone as it is."""
    from msta.config import EvalSettings
    from msta.evaluation.run import evaluate_on

    views = _checked(EvalSettings, clips=clips, crops=crops).views()
    metrics = evaluate_on(
        _load_model(backbone, base, adapter), data, split=split, views=views, new_classes=new_classes, console=console,
        template=template, predictions=predictions,
    )  # fmt: skip
    for path, reason in metrics["unreadable"].items():
        _say(one_line(f"left out: {path}: {reason}"))
    if as_json:
        _print_json(metrics)
    else:
        accuracy = f"top-1 {metrics['top1']:.1f} %  top-5 {metrics['top5']:.1f} %"
        print(f"{accuracy}  of {metrics['clips']} clips ({metrics['split']})")


@app.command(
    epilog="Example: msta predict clips/*.mp4 --adapter runs/first/adapter; "
    "msta predict long.mp4 --adapter runs/first/adapter --window 2s --stride 0.5s --format srt --out long.srt; "
    'msta predict clip.mp4 --backbone ViClip.pth --labels "push,hug,shake hands"'
)
def predict(
    videos: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, patterns; with --window also rtsp:// or http:// and webcam:0."),
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="An adapter's directory; again: several of one backbone, in one pass.")
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    labels: Annotated[
        str | None, typer.Option(help="Classes, separated by commas, or a .txt or .csv of them; else the adapter's.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help='"a video of {}."; again: several, averaged. Else the adapter\'s.')
    ] = None,
    unknown_below: Annotated[
        str | None, typer.Option(help="A probability, or val (the adapter's own): below it a video is unknown.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print for a video.")] = 3,
    clips: Annotated[int, typer.Option(min=1, help="Test clips a video.")] = 1,
    crops: Annotated[int, typer.Option(help="Test crops a clip: 1 or 3.")] = 1,
    window: Annotated[str | None, typer.Option(help="Make a timeline, of windows of so long: 2s.")] = None,
    stride: Annotated[str | None, typer.Option(help="From one window to the next. Default: a quarter.")] = None,
    min_duration: Annotated[str, typer.Option(help="Shorter segments are given to their neighbours.")] = "0s",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop a timeline there, of a stream say.")] = None,
    format: Annotated[str, typer.Option(help="table, json, csv; of a timeline also srt, elan.")] = "table",
    out: Annotated[Path | None, typer.Option(help="A file to write to; of srt and elan for several, a folder.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="An MP4 of the video with the timeline's labels in it.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Videos, or windows, at a time.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 2,
    data: Annotated[
        Path | None,
        typer.Option(help="In place of videos: a data set or a CSV of path; --out is a .parquet or folder."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Of --data: local processes, or ray, an extra.")] = "local",
    processes: Annotated[int | None, typer.Option(min=1, help="Of --data: models at work. Default: one a GPU.")] = None,
    partition: Annotated[int, typer.Option(min=1, help="Of --data: clips of a part, which is not begun twice.")] = 1000,
    as_json: AsJSON = False,
) -> None:
    """Say what happens in each video, or in a long one when: with --window. With --data: of a catalog of any size.

    Probabilities are at the temperature that fitted the adapter's validation clips. A file that cannot be read is
    reported in its place, and the exit code is 1.
    """
    from msta.config import EvalSettings
    from msta.inference.class_sets import class_names, unknown_threshold
    from msta.inference.durations import parse_seconds
    from msta.inference.predict import Request
    from msta.inference.predict import predict as run
    from msta.inference.predictor import Predictor
    from msta.inference.segments import Smoothing
    from msta.inference.sources import expand
    from msta.inference.timeline import Windows

    views = _checked(EvalSettings, clips=clips, crops=crops).views()
    names = class_names(labels) if labels is not None else None
    adapters = adapter or []
    if data is not None:
        _predict_catalog(
            data, out, engine, processes, partition, as_json, adapter=adapters, backbone=backbone, base=base,
            labels=names, template=template, views=views, batch=batch, readers=workers,
            plain=window is None and not videos,
        )  # fmt: skip
        return
    if not videos:
        raise ConfigError("give videos, or --data")
    each: list[Path | None] = [*adapters] or [None]
    below = [unknown_threshold(unknown_below, a) if unknown_below is not None else None for a in each]
    if not adapters and names is None:
        raise ConfigError("give --adapter, or --labels")
    if stride is not None and window is None:
        raise ConfigError("--stride: goes with --window")
    length = parse_seconds(window, "--window") if window is not None else None
    windows = length and Windows(length, parse_seconds(stride, "--stride") if stride else length / 4, batch)
    request = Request(
        expand(videos), windows or None, Smoothing(parse_seconds(min_duration, "--min-duration")),
        "json" if as_json else format, out, overlay, below, top, batch, workers, seconds,
    )  # fmt: skip
    request.check()
    predictors = {
        name: Predictor(model, names, template=template, views=views)
        for name, model in _load_models(backbone, base, adapters).items()
    }
    if not run(predictors, request, lambda text: print(text, flush=True)):
        raise typer.Exit(1)


@app.command(epilog="Example: msta explain clip.mp4 --adapter runs/first/adapter --out why")
def explain(
    video: Annotated[str, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Option(help="A folder for strip.png, overlay.mp4 and explanation.json.")],
    adapter: Annotated[Path | None, typer.Option(help="An adapter's directory.")] = None,
    backbone: Backbone = None,
    base: Base = None,
    labels: Annotated[
        str | None, typer.Option(help="Classes, separated by commas, or a .txt or .csv of them; else the adapter's.")
    ] = None,
    template: Annotated[list[str] | None, typer.Option(help="As for predict.")] = None,
    label: Annotated[str | None, typer.Option("--class", help="The class to explain. Default: the likeliest.")] = None,
    start: Annotated[str, typer.Option(help="Explain a part of a long video: from here …")] = "0s",
    end: Annotated[str | None, typer.Option(help="… to here.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the integral: more are more exact, and take longer.")] = 16,
    as_json: AsJSON = False,
) -> None:
    """Show which patches of which frames, and which words, make a video of a class."""
    from msta.inference.class_sets import class_names
    from msta.inference.durations import parse_seconds
    from msta.inference.explain import explain as run
    from msta.inference.heat import summary, write_explanation
    from msta.inference.predictor import Predictor

    names = class_names(labels) if labels is not None else None
    if adapter is None and names is None:
        raise ConfigError("give --adapter, or --labels")
    span = parse_seconds(start, "--start"), parse_seconds(end, "--end") if end is not None else None
    predictor = Predictor(_load_model(backbone, base, adapter), names, template=template)
    explanation = run(predictor, video, label, span=span, steps=steps)
    data = write_explanation(explanation, video, out, span)
    if as_json:
        _print_json(data)
    else:
        print(summary(data, out))


@app.command(epilog='Example: msta search "someone falls" --in videos/ --backbone ViClip.pth --out found.html')
def search(
    query: Annotated[str, typer.Argument(help="A sentence.")],
    folder: Annotated[Path, typer.Option("--in", help="A folder of videos.")],
    adapter: Annotated[Path | None, typer.Option(help="An adapter's directory. Else the bare backbone.")] = None,
    backbone: Backbone = None,
    base: Base = None,
    index: Annotated[
        Path | None, typer.Option(help="The index; made, or completed. Default: .msta-index.parquet in the folder.")
    ] = None,
    window: Annotated[str, typer.Option(help="How long a moment is.")] = "4s",
    stride: Annotated[str | None, typer.Option(help="From one to the next. Default: half.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Moments to find.")] = 12,
    out: Annotated[Path | None, typer.Option(help="A page with pictures, .html.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Find the moments in a folder of videos that a sentence describes. The first search reads all of them."""
    from msta.inference.durations import parse_seconds
    from msta.inference.output import clock
    from msta.inference.search import INDEX, query_embedding, update_index, write_found
    from msta.inference.timeline import Windows

    length = parse_seconds(window, "--window")
    windows = Windows(length, parse_seconds(stride, "--stride") if stride else length / 2)
    model = _load_model(backbone, base, adapter).eval()
    asked = query_embedding(model, query)
    with console.status("reading the folder") as status:
        made = update_index(
            model, folder, index or folder / INDEX, windows,
            lambda number, count, path: status.update(one_line(f"indexing {number} of {count}: {path}")),
        )  # fmt: skip
    found = made.nearest(asked, top)
    if out is not None:
        write_found(query, folder, found, made, out)
    if as_json:
        _print_json([vars(moment) for moment in found])
        return
    for m in found:
        print(one_line(f"{m.score:.3f}  {clock(m.start)} - {clock(m.end)}  {m.path}"))


@app.command(epilog="Example: msta info runs/first/adapter, or msta info --plan --data clips/ --shots 8 cache.views=10")
def info(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET | KEY=VALUE", help="A backbone, an adapter; with --plan, any setting."),
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    plan: Annotated[bool, typer.Option("--plan", help="What msta train would take with these options.")] = False,
    data: Annotated[Path | None, typer.Option(help="As for train.")] = None,
    method: Annotated[str | None, typer.Option(help="As for train.")] = None,
    shots: Annotated[int | None, typer.Option(help="As for train.")] = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: AsJSON = False,
) -> None:
    """Describe this installation, a backbone, or an adapter (what is trained, of what, for which classes).

    With --plan: parameters, arithmetic, memory and time of a training run, before it starts.
    """
    if plan:
        from msta.config import make_config
        from msta.training.plan import plan as planned

        if data is None:
            raise ConfigError("missing --data")
        settings = {"data.path": str(data), "data.shots": shots, "backbone": backbone, "base": base}
        described = planned(make_config(preset, settings, arguments or [], method=method))
    else:
        from msta.inference.describe import describe

        if len(arguments or []) > 1 or data or method or shots:
            raise ConfigError("one target at a time; --data, --method and --shots go with --plan")
        described = describe(arguments[0] if arguments else None, backbone, base)
    if as_json:
        _print_json(described)
        return
    width = max(map(len, described))
    for name, value in described.items():
        print(f"{name:>{width}}  " + (f"{value:,}" if type(value) is int else str(value)))


@app.command(epilog="Example: msta pretrain --out runs/toy")
def pretrain(
    out: Annotated[Path, typer.Option(help="Clips, logs, state and, at the end, backbone/. Given again, it goes on.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps. Default: 4,000.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Clips of MotionWorld to draw. Default: 80,000.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of clips, weights and order.")] = 0,
) -> None:
    """Pretrain a small ViCLIP from nothing on MotionWorld, a synthetic world of captioned motion. Takes hours."""
    from msta.training.pretrain import PretrainConfig
    from msta.training.pretrain import pretrain as run

    given: dict[str, Any] = {name: n for name, n in (("steps", steps), ("clips", clips)) if n is not None}
    run(PretrainConfig(seed=seed, **given), out, console)


data_app = typer.Typer(no_args_is_help=True, help="Make, list, check and split data sets.")
app.add_typer(data_app, name="data")


@data_app.command(
    epilog='Example: msta data motionworld --out clips/ --motions "swipe left,swipe right,circle" --clips 16'
)
def motionworld(
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    motions: Annotated[str | None, typer.Option(help="Names, separated by commas. Default: a few.")] = None,
    clips: Annotated[int, typer.Option(help="Clips a class.")] = 16,
    size: Annotated[int, typer.Option(help="Pixels a side, even.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames a clip.")] = 32,
    domain: Annotated[
        str, typer.Option(help="train, held-out, or shifted: things and patterns the others lack.")
    ] = "shifted",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    names: Annotated[bool, typer.Option("--list", help="List the motions, and write nothing.")] = False,
) -> None:
    """Write labelled MP4 clips of synthetic motion in class folders, with descriptions of the classes."""
    from msta.data.motionworld import ALL_MOTIONS, DEMO_MOTIONS, write_dataset

    if names:
        print("\n".join(ALL_MOTIONS))
        return
    chosen = DEMO_MOTIONS if motions is None else [name.strip() for name in motions.split(",")]
    write_dataset(out, chosen, clips, size=size, frames_per_clip=frames, domain=domain, seed=seed)
    print(f"{len(chosen)} classes of {clips} clips in {out}")


DataFolder = Annotated[Path, typer.Option("--data", help="As for train.")]
DataSettings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="data.layout=ucf101 and any other setting of data.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Files at a time. Default: the processors there are.")]


@data_app.command(
    name="index",
    epilog="Example: msta data index --data UCF-101/ --out ucf2.parquet data.layout=ucf101 data.split_number=2",
)
def index_(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="A new file, .parquet or .csv; itself a data set.")],
    overrides: DataSettings = None,
    without: Annotated[
        Path | None, typer.Option(help="Leave out the clips of this table, broken.csv of msta data verify.")
    ] = None,
    workers: Workers = None,
    as_json: AsJSON = False,
) -> None:
    """Write a data set's catalog once: path, class, split, start, end, duration, frames of each clip."""
    from msta.config import make_config
    from msta.data.index import index

    catalog = make_config("small", {"data.path": str(data)}, overrides or []).data.read()
    done = index(catalog, out, without=without, workers=workers, console=None if as_json else console)
    if as_json:
        _print_json(done)
        return
    hours = f"{done['seconds'] / 3600:.2f} h of video"
    print(f"{done['clips']} clips of {done['classes']} classes in {done['files']} files, {hours}, in {out}")


@data_app.command(epilog="Example: msta data verify --data clips/ --out verified/")
def verify(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="A folder for broken.csv. Given again, it goes on.")],
    overrides: DataSettings = None,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a file may take.")] = 300.0,
    as_json: AsJSON = False,
) -> None:
    """Decode every file from first frame to last, and list what is broken, and why. Exit code 1 if anything is."""
    from msta.config import make_config
    from msta.data.verify import verify as run

    catalog = make_config("small", {"data.path": str(data)}, overrides or []).data.read()
    done = run(catalog, out, workers=workers, timeout=timeout, console=None if as_json else console)
    if as_json:
        _print_json(done)
    else:
        for row in done["broken"][:20]:
            _say(one_line(f"{row['problem']}: {row['path']}: {row['reason']}"))
        print(
            f"{len(done['broken'])} of {done['clips']} clips in {done['files']} files are broken; see {out}/broken.csv"
        )
    if done["broken"]:
        raise typer.Exit(1)


@data_app.command(
    epilog="Example: msta data split --data clips/ --out splits/base-4 --classes base data.shots=4 data.seed=1"
)
def split(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="A new folder for split.csv and classes.csv; split.csv is a data set.")],
    overrides: DataSettings = None,
    classes: Annotated[str, typer.Option(help="all, or the base or novel half.")] = "all",
    as_json: AsJSON = False,
) -> None:
    """Write who trains, validates and tests, as msta train would decide it."""
    from msta.config import make_config
    from msta.data.splits import write_split

    settings = make_config("small", {"data.path": str(data)}, overrides or []).data
    done = write_split(
        settings.read(), out, classes, shots=settings.shots, val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction, seed=settings.seed,
    )  # fmt: skip
    if as_json:
        _print_json(done)
        return
    print(
        f"{done['classes']} classes: {done['train']} train, {done['val']} val, {done['test']} test, in {out}/split.csv"
    )


@data_app.command(
    epilog="Example: msta data shard --data clips/ --out shards/ --resize 256; "
    "msta train --data shards/index.json --out RUN"
)
def shard(
    data: DataFolder,
    out: Annotated[str, typer.Option(help="A folder or a URL that fsspec knows. Given again, it goes on.")],
    overrides: DataSettings = None,
    resize: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Encode again, the shorter side at most so long.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="The files as they are: the default without --resize.")] = False,
    reencode: Annotated[
        bool, typer.Option("--reencode", help="H.264 without sound, time ranges cut: the default for those.")
    ] = False,
    clips_per_shard: Annotated[int | None, typer.Option(min=1, help="Clips in a tar file, in place of --mb.")] = None,
    mb: Annotated[float, typer.Option(min=0.001, help="10^6 bytes at which a tar file is closed.")] = 256.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which clips are written.")] = 0,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a clip may take.")] = 300.0,
    as_json: AsJSON = False,
) -> None:
    """Write a data set as tar files with an index, to be streamed from disk, over HTTP, or from object stores.

    Clips that cannot be read are left out and listed in index.json. The shards are WebDataset's.
    """
    from msta.config import make_config
    from msta.data.shards.write import Recipe, write_shards

    if copy and reencode:
        raise ConfigError("--copy, --reencode: one or the other")
    mode: Any = "copy" if copy else "reencode" if reencode else None
    catalog = make_config("small", {"data.path": str(data)}, overrides or []).data.read()
    recipe = Recipe(mode, resize, clips_per_shard, mb, seed)
    index = write_shards(catalog, out, recipe, workers=workers, timeout=timeout, console=None if as_json else console)
    if as_json:
        _print_json(index)
        return
    for one in index["left_out"]:
        _say(one_line(f"left out: {one['clip']}: {one['reason']}"))
    size = sum(each["bytes"] for each in index["shards"]) / 1e6
    print(f"{index['clips']} clips in {len(index['shards'])} shards, {size:.1f} MB; {len(index['left_out'])} left out")


@app.command(epilog="Example: msta describe --labels classes.csv --out bank.json --model gpt-4o-mini")
def describe(
    out: Annotated[Path, typer.Option(help="The bank: made, or completed. Given again, it goes on.")],
    labels: Annotated[
        Path | None, typer.Option(help="Class names: classes.csv, a text file of one a line, a data set's folder.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The language model, as the server calls it.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Base URL of a server of OpenAI's protocol. Default: $OPENAI_BASE_URL, else OpenAI."),
    ] = None,
    key_from: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable of the key; your own server may need none.")
    ] = "OPENAI_API_KEY",
    sentences: Annotated[int, typer.Option(help="Of either kind for each class.")] = 4,
    jobs: Annotated[int, typer.Option(help="Classes in flight.")] = 8,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds an answer may take.")] = 120,
    template: Annotated[bool, typer.Option("--template", help="Fill templates, without a language model.")] = False,
    edit: Annotated[bool, typer.Option("--edit", help="Open the bank in $EDITOR, to write by hand.")] = False,
) -> None:
    """Write spatial and temporal sentences for each class, which the consistency term holds the text tower to.

    With Ollama: --endpoint http://localhost:11434/v1 --model NAME. Then: msta descriptions check, and
    msta train descriptions.bank=FILE.
    """
    from msta.descriptions import describe as by
    from msta.descriptions.endpoint import endpoint as endpoint_of
    from msta.descriptions.generate import Patience
    from msta.descriptions.labels import read_labels

    if labels is None and not edit:
        raise ConfigError("missing --labels")
    classes = read_labels(labels) if labels is not None else ()
    if edit:
        done = by.edit(classes, out)
    elif template:
        done = by.describe_by_template(classes, out, sentences=sentences)
    else:
        to, patience = endpoint_of(endpoint, model, key_from), Patience(timeout=timeout)
        done = by.describe(classes, out, to, console, sentences=sentences, jobs=jobs, patience=patience)
    for name, why in done.incomplete.items():
        _say(one_line(f"{name}: {why}"))
    if done.incomplete and not edit:
        lacking = f"{len(done.incomplete)} of {len(classes)} classes lack sentences"
        raise MSTAError(f"{out}: {lacking}; the same command asks for them again")
    print(f"{len(done.bank.classes)} classes in {out}")


descriptions_app = typer.Typer(no_args_is_help=True, help="Check, import and export descriptions of classes.")
app.add_typer(descriptions_app, name="descriptions")


@descriptions_app.command(
    name="import",
    epilog="Example: msta descriptions import --labels classes.csv --spatial 8_s.json --out bank.json",
)
def import_(
    labels: Annotated[Path, typer.Option(help="Class names, in the order of the files' indices.")],
    out: Annotated[Path, typer.Option(help="The bank; classes that are in it already are replaced.")],
    spatial: Annotated[Path | None, typer.Option(help="N_s_…json: class index -> sentences.")] = None,
    temporal: Annotated[Path | None, typer.Option(help="N_t_…json: class index -> sentences.")] = None,
) -> None:
    """Read descriptions in the authors' format into a bank."""
    from msta.descriptions.exchange import import_official

    print(import_official(spatial, temporal, labels, out))


@descriptions_app.command(epilog="Example: msta descriptions export --bank bank.json --spatial 4_s.json")
def export(
    bank: Annotated[Path, typer.Option(help="The bank.")],
    spatial: Annotated[Path | None, typer.Option(help="A new file.")] = None,
    temporal: Annotated[Path | None, typer.Option(help="A new file.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Which classes, in which order. Default: all.")] = None,
) -> None:
    """Write a bank, or some of its classes, in the authors' format."""
    from msta.descriptions.exchange import export_official

    print(export_official(bank, spatial, temporal, labels))


@descriptions_app.command(epilog="Example: msta descriptions check --bank bank.json --out check.html")
def check(
    bank: Annotated[Path, typer.Option(help="The bank.")],
    backbone: Backbone = None,
    base: Base = None,
    labels: Annotated[Path | None, typer.Option(help="Which classes. Default: all.")] = None,
    template: Annotated[str, typer.Option(help="The classes' own prompt.")] = "a video of {}.",
    out: Annotated[Path | None, typer.Option(help="A new page, .html, with heat maps.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Ask a backbone's text tower which sentences are bad, and how far the anchors are from their own prompts."""
    from msta.descriptions.labels import read_labels
    from msta.evaluation.descriptions import check_bank, print_check

    model = _load_model(backbone, base, None).backbone
    found = check_bank(bank, model, read_labels(labels) if labels else None, template=template, out=out)
    if as_json:
        _print_json(found)
    else:
        print_check(found)


@app.command(
    epilog="Example: msta protocol few-shot --data clips/ --shots 2,4,8 --out runs/few-shot; "
    "msta protocol zero-shot --source clips/ --target ucf101=UCF-101/ --out runs/transfer; "
    "msta protocol report --out runs/few-shot"
)
def protocol(
    name: Annotated[
        str, typer.Argument(help="zero-shot, few-shot, base-to-novel or supervised; report makes its pages again.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting of msta train.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]PATH[?setting=value&…]. Again with one NAME: its other splits, averaged over."),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="The same: what zero-shot trains on.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="The same: what zero-shot tests on; base-to-novel: the novel classes.")
    ] = None,
    second: Annotated[
        list[str] | None, typer.Option(help="The same: also tested on, to see what training made the model forget.")
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    adapter: Annotated[Path | None, typer.Option(help="A trained one for zero-shot, in place of --source.")] = None,
    method: Annotated[str, typer.Option(help="Names, separated by commas, the baseline first.")] = "zero-shot,msta",
    shots: Annotated[
        str | None, typer.Option(help="Clips a class. Default: 2,4,8,16 for few-shot, 16 for base-to-novel, else all.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Of splits and training, separated by commas.")] = "0,1,2",
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    published: Annotated[Path | None, typer.Option(help="JSON of others' figures, to stand beside yours.")] = None,
    out: Annotated[Path | None, typer.Option(help="Given again, it goes on and skips what is finished.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Run one of the field's four protocols: splits, runs, tables with intervals, and a report to look at.

    Writes DIR/report.html, results.md, results.tex and results.json, and keeps every prediction. The checkpoint is
    selected on validation clips; train.watch_test=true also prints the authors' choice, by test clips, as test-leak.
    """
    from msta.evaluation.protocol_report import summary, write_report
    from msta.evaluation.protocols import Request
    from msta.evaluation.running import run_protocol

    if out is None:
        raise ConfigError("missing --out")
    if name != "report":
        request = Request(
            name,
            tuple(data or ()),
            tuple(source or ()),
            tuple(target or ()),
            tuple(_listed(method)),
            tuple(_integers(shots, "--shots")) if shots is not None else None,
            tuple(_integers(seeds, "--seeds")),
            preset,
            tuple(overrides or ()),
            backbone,
            base,
            adapter,
            tuple(second or ()),
        )
        run_protocol(request, out, console)
    results = write_report(out, published)
    if as_json:
        _print_json(results)
    else:
        print(summary(results))
        print(f"Report: {out / 'report.html'}")


@app.command(epilog="Example: msta ablate --data clips/ --shots 8 --axes dim,kernel,towers --out runs/ablation")
def ablate(
    data: Annotated[Path, typer.Option(help="As for train.")],
    out: Annotated[Path, typer.Option(help="Runs, table and figures. Given again, it goes on.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting, of all runs.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Choices to vary, separated by commas. Default: all.")] = None,
    novel: Annotated[bool, typer.Option("--novel", help="Train on half of the classes, measure both halves.")] = False,
    shots: Annotated[int | None, typer.Option(min=1, help="Training clips a class. Default: as train.")] = None,
    seeds: Annotated[str, typer.Option(help="Of splits and training, separated by commas.")] = "0,1,2",
    backbone: Backbone = None,
    base: Base = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: AsJSON = False,
) -> None:
    """Vary MSTA's choices one at a time: blocks, dim, scale, shared, kernel, towers, consistency, sentences, template.

    Each point is a run; OUT/ablation.md is the table, OUT/AXIS.png a figure each. Finished runs are not run again.
    """
    from msta.evaluation.ablation import Ablation
    from msta.evaluation.ablation import ablate as run
    from msta.evaluation.ablation_report import table

    chosen, numbers = tuple(_listed(axes)) if axes is not None else None, tuple(_integers(seeds, "--seeds"))
    asked = Ablation(data, novel, chosen, shots, numbers, preset, tuple(overrides or ()), backbone, base)
    result = run(asked, out, console)
    if as_json:
        _print_json(result)
    else:
        print(table(result), end="")


@app.command(
    epilog="Example: msta compare --methods linear-probe,lora,full,msta --data clips/ --shots 8 "
    "--cases few-shot,base-to-novel --second other=more-clips/ --out runs/compared"
)
def compare(
    data: Annotated[list[str], typer.Option(help="[NAME=]PATH[?setting=value&…]. Again: another data set.")],
    out: Annotated[Path, typer.Option(help="Runs, tables, figures. Given again, it goes on.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METHOD:]KEY=VALUE", help="Any setting, of all runs or of a method's own."),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Names, separated by commas. zero-shot is always there.")
    ] = "linear-probe,full,lora,mma,msta",
    cases: Annotated[str, typer.Option(help="few-shot, base-to-novel, or both.")] = "few-shot",
    shots: Annotated[int, typer.Option(min=1, help="Training clips a class.")] = 8,
    seeds: Annotated[str, typer.Option(help="Of splits and training, separated by commas.")] = "0,1,2",
    second: Annotated[
        list[str] | None, typer.Option(help="[NAME=]PATH: also tested on, to see what training made a model forget.")
    ] = None,
    trials: Annotated[int, typer.Option(min=0, help="Of a search on validation, for each method; 0: defaults.")] = 8,
    schedule: Annotated[str, typer.Option(help="equal for all, or own: each method's authors'.")] = "equal",
    backbone: Backbone = None,
    base: Base = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: AsJSON = False,
) -> None:
    """Compare methods fairly: same clips, same views, same budget, settings searched on validation for each.

    Accuracy with intervals and paired tests, base-to-novel, forgetting, parameters, time, memory, size: in
    OUT/report.html, comparison.md and comparison.json. Finished runs are not run again.
    """
    from msta.evaluation.comparison import Comparison
    from msta.evaluation.comparison import compare as run
    from msta.evaluation.comparison_report import markdown

    common, own = _by_method(overrides or ())
    asked = Comparison(
        tuple(data), tuple(_listed(methods)), tuple(_listed(cases)), shots, tuple(_integers(seeds, "--seeds")),
        tuple(second or ()), trials, schedule, preset, common, backbone, base, own,
    )  # fmt: skip
    result = run(asked, out, console)
    if as_json:
        _print_json(result)
    else:
        print(markdown(result), end="")
        print(f"\nReport: {out / 'report.html'}")


@app.command(epilog="Example: msta serve --adapters adapters/ --keys keys.txt --host 0.0.0.0")
def serve(
    adapters: Annotated[Path, typer.Option(help="A folder with a sub-folder an adapter, all of one backbone.")],
    backbone: Backbone = None,
    base: Base = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    root: Annotated[Path | None, typer.Option(help="A folder whose videos may be asked about by path.")] = None,
    keys: Annotated[Path | None, typer.Option(help="API keys, one a line. Else: $MSTA_API_KEYS.")] = None,
    allow_anyone: Annotated[bool, typer.Option("--allow-anyone", help="No keys, whatever the address.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes. Default: CPUs less 1.")] = None,
    max_mb: Annotated[int, typer.Option(min=1, help="Megabytes a request.")] = 64,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of video.")] = 600,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to an answer.")] = 60,
    adapter_mb: Annotated[int, typer.Option(min=1, help="Megabytes of adapters kept in memory.")] = 512,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests worked on at a time; thrice as many may wait.")] = 64,
) -> None:
    """Answer over HTTP, many adapters on one backbone. POST /v1/classify with file= and adapter=; see /docs.

    SIGTERM ends it when the requests it has are answered.
    """
    try:
        from msta.inference.service.limits import Limits
        from msta.inference.service.server import read_keys
        from msta.inference.service.server import serve as run
    except ImportError as error:
        raise ConfigError(f"msta serve needs the package {error.name}: pip install 'msta[serve]'") from error
    limits = Limits(
        body_bytes=max_mb * 2**20, seconds=max_seconds, request_seconds=timeout, adapter_bytes=adapter_mb * 2**20,
        concurrent=concurrent, queue=3 * concurrent,
    )  # fmt: skip
    run(
        _load_model(backbone, base, None).backbone, adapters, host=host, port=port, root=root, keys=read_keys(keys),
        allow_anyone=allow_anyone, workers=workers, limits=limits,
    )  # fmt: skip


@app.command(name="app", epilog="Example: msta app --adapter runs/first/adapter --in videos/")
def app_(
    adapter: Annotated[list[Path] | None, typer.Option(help="An adapter's directory; again: several.")] = None,
    adapters: Annotated[
        Path | None, typer.Option(help="A folder with a sub-folder an adapter, or a run. All of one backbone.")
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    search_in: Annotated[Path | None, typer.Option("--in", help="The folder that is offered for a search.")] = None,
    runs: Annotated[Path, typer.Option(help="Where trained adapters go; those in it can be picked.")] = Path(
        "msta-runs"
    ),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    allow_anyone: Annotated[
        bool, typer.Option("--allow-anyone", help="Listen where others can reach it. There is no password.")
    ] = False,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of a video.")] = 3600,
) -> None:
    """Use it in a browser: predict, train an adapter from a few clips, search. Nothing leaves this computer.

    Ctrl-C ends it; a training under way is saved, and goes on with msta train --resume.
    """
    from msta.inference.app.server import run

    run(
        adapter or [], adapters, backbone=backbone, base=base, search_in=search_in, runs=runs, host=host, port=port,
        allow_anyone=allow_anyone, seconds=max_seconds,
    )  # fmt: skip


@app.command(name="export", epilog="Example: msta export --adapter runs/first/adapter --out exported --precision int8")
def export_(
    out: Annotated[Path, typer.Option(help="A new directory.")],
    adapter: Annotated[
        Path | None, typer.Option(help="An adapter's directory. Without: the backbone, --labels.")
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    labels: Annotated[str | None, typer.Option(help="As for predict.")] = None,
    form: Annotated[str, typer.Option("--format", help="onnx or torch-export.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    tolerance: Annotated[float | None, typer.Option(min=0, help="Relative difference from torch let through.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Write the adapted model for ONNX Runtime, or as a torch.export program, the classes baked in.

    It is compared with torch first, and not written if it differs. docs/export.md tells how to run it without torch.
    """
    from msta.inference.class_sets import class_names
    from msta.inference.export import TOLERANCE
    from msta.inference.export import export as run
    from msta.inference.shared import Member

    for option, value, known in (("--format", form, ("onnx", "torch-export")), ("--precision", precision, TOLERANCE)):
        if value not in known:
            raise ConfigError(f"{option}: expected one of {', '.join(known)}, got {value!r}")
    if adapter is None and labels is None:
        raise ConfigError("give --adapter, or --labels")
    member = Member(_load_model(backbone, base, adapter).cpu(), class_names(labels) if labels is not None else None)
    done = run(member, out, form, precision, tolerance)  # type: ignore[arg-type]
    if as_json:
        _print_json(done)
        return
    frames = "any number of" if done["any_frames"] else done["frames"]
    print(f"{out}: {len(done['classes'])} classes, {frames} frames of {done['size']} px, {precision}")
    for name, size in done["bytes"].items():
        print(f"  {name}  {size / 1e6:.1f} MB, differs from torch by {done['differs_by'][name]:.1e}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _by_method(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Overrides of all runs, and those written METHOD:KEY=VALUE by method."""
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for override in overrides:
        method, colon, _ = override.partition("=")[0].partition(":")
        if colon:
            own.setdefault(method.strip(), []).append(override.partition(":")[2])
        else:
            common.append(override)
    return tuple(common), tuple((method, tuple(settings)) for method, settings in own.items())


def _integers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise ConfigError(f"{option}: expected numbers separated by commas, got {text!r}") from None


def _load_model(backbone: str | None, base: str | None, adapter: Path | None) -> Any:
    import torch

    import msta

    if adapter is not None:
        model = msta.load_adapter(adapter, msta.load_backbone(backbone, base=base) if backbone is not None else None)
    else:
        model = msta.attach(msta.load_backbone(backbone or "toy", base=base), "zero-shot")
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _predict_catalog(
    data: Path, out: Path | None, engine: Any, processes: int | None, partition: int, as_json: bool, *,
    adapter: list[Path], labels: Any, template: Any, plain: bool, **settings: Any,
) -> None:  # fmt: skip
    from msta.config import make_config
    from msta.inference.bulk import Job, default_threads, predict_catalog
    from msta.inference.clip_lists import read_clips

    if out is None:
        raise ConfigError("missing --out")
    if not plain or len(adapter) > 1:
        raise ConfigError("--data: goes with one --adapter, and with neither videos nor --window")
    if not adapter and labels is None:
        raise ConfigError("give --adapter, or --labels")
    read = make_config("small", {"data.path": str(data)}).data.read
    clips, classes = read_clips(data, read)
    job = Job(
        str(adapter[0].absolute()) if adapter else None, labels=tuple(labels) if labels else None,
        template=tuple(template) if template else None, threads=default_threads(processes), **settings,
    )  # fmt: skip
    done = predict_catalog(
        clips, classes, out, job, engine=engine, partition=partition, processes=processes,
        console=None if as_json else console,
    )  # fmt: skip
    if as_json:
        _print_json(done)
    else:
        print(f"{done['clips']} clips in {done['out']}; {done['unreadable']} could not be read, see the column error")


def _load_models(backbone: str | None, base: str | None, adapters: list[Path]) -> dict[str, Any]:
    """By name; all in one backbone."""
    import msta
    from msta.inference.durations import short_names

    first = _load_model(backbone, base, adapters[0] if adapters else None)
    models = [first]
    if len(adapters) > 1:
        frozen = msta.load_backbone(backbone or first.origin["source"], base=base or first.origin.get("base"))
        models = [msta.load_adapter(adapter, frozen).to(first.backbone.logit_scale.device) for adapter in adapters]
    return dict(zip(short_names(adapters) or [""], models, strict=True))


def _checked(section: Any, **values: Any) -> Any:
    from pydantic import ValidationError

    from msta.config import explain

    try:
        return section(**values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    logging.getLogger("msta").addHandler(_Notices())
    try:
        app()
    except Interrupted as error:
        _fail(error, 130)
    except ConfigError as error:
        _fail(error, 2)
    except MSTAError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        _fail(f"{error.filename or 'error'}: {error.strerror or error}", 1)


class _Notices(logging.Handler):
    """Notices go above the progress bar, each on a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """One notice."""
        _say(one_line(record.getMessage()))


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _fail(message: object, code: int) -> NoReturn:
    """One line on standard error."""
    print(f"msta: {one_line(str(message))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
