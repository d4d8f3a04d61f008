"""Commands that use a model: predict, explain, search, serve, app, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from msta.cli import options as opt
from msta.cli.options import (
    adapter_or_run,
    app,
    checked,
    computes,
    console,
    data_settings,
    load_model,
    load_models,
    print_result,
)
from msta.errors import ConfigError, one_line

command = partial(app.command, rich_help_panel="Use")


@command(
    epilog="Example: msta predict clips/*.mp4 --adapter runs/first; "
    "msta predict long.mp4 --adapter runs/first --window 2s --stride 0.5s --format srt --out long.srt; "
    'msta predict clip.mp4 --backbone ViClip.pth --labels "push,hug,shake hands"'
)
@computes("device", "precision")
def predict(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEO | KEY=VALUE",
            help="Files, folders, patterns; with --window also rtsp:// or http:// and webcam:0. "
            "With --data its settings: data.layout=ucf101.",
        ),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            parser=adapter_or_run,
            help="The folder of a run or adapter, or a Hub id. May be given several times, with one backbone; "
            "or what msta export wrote, alone.",
        ),
    ] = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    labels: opt.Labels = None,
    template: opt.Template = None,
    unknown_below: Annotated[
        str | None, typer.Option(help="A video below this probability is unknown. val: the threshold of the adapter.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Classes to print per video. Default: 3.")] = None,
    clips: opt.TestClips = 1,
    crops: opt.TestCrops = 1,
    window: Annotated[
        str | None, typer.Option(help="Make a timeline, with windows of this length, such as 2s.")
    ] = None,
    stride: Annotated[
        str | None, typer.Option(help="Time from one window to the next. Default: a quarter of a window.")
    ] = None,
    min_duration: Annotated[str | None, typer.Option(help="Shorter segments are merged into their neighbours.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Stop the timeline after this time, for instance that of a stream.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="table (the default), json, csv; for a timeline also srt, elan.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A file to write to; a folder if several videos give srt or elan.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Write an MP4 of the video with the labels of the timeline.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Videos, or windows, at a time.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 2,
    data: Annotated[
        Path | None,
        typer.Option(help="In place of videos: a data set, or a CSV of path. --out is then a .parquet or a folder."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="For --data: local processes, or ray, an optional package.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="For --data: processes with a model each. Default: one per GPU.")
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            min=1, help="For --data: clips per partition. Finished partitions are not computed again. Default: 1,000."
        ),
    ] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Classify videos. With --window: say what happens when in a long video. With --data: a data set of any size.

    Probabilities are at the temperature that was fitted on the adapter's validation clips. If a file cannot be read, an
    error takes its place, and the exit code is 1.
    """
    from msta.inference.arguments import adapter_names, class_names, find_videos, parse_seconds, unknown_threshold
    from msta.inference.onnx_predictor import export_in
    from msta.inference.predict import Request
    from msta.inference.predict import predict as run
    from msta.inference.predictor import ExportedPredictor, Predictor
    from msta.inference.segments import Smoothing
    from msta.inference.windows import Windows
    from msta.settings import EvalSettings

    views = checked(EvalSettings, clips=clips, crops=crops).views()
    names = class_names(labels) if labels is not None else None
    adapters = adapter or []
    shown = {
        "--unknown-below": unknown_below, "--top": top, "--format": format, "--overlay": overlay, "--window": window,
    }  # fmt: skip
    exported = [folder for one in adapters if (folder := export_in(one)) is not None]
    if exported:
        fixed = {"--backbone": backbone, "--labels": labels, "--template": template, "--data": data,
                 "--clips": clips > 1, "--crops": crops > 1, "a second --adapter": len(adapters) > 1}  # fmt: skip
        _refuse(fixed, f"does not go with {exported[0]}, an exported model")
    timed = {"--stride": stride, "--min-duration": min_duration, "--seconds": seconds}
    if data is not None:
        _refuse({**shown, **timed}, "does not go with --data")
        _predict_catalog(
            data, videos, out, engine or "local", processes, partition or 1000, as_json, adapter=adapters,
            backbone=backbone, base=base, labels=names, template=template, views=views, batch=batch, readers=workers,
        )  # fmt: skip
        return
    if not videos:
        raise ConfigError("give videos, or --data")
    _refuse({"--engine": engine, "--processes": processes, "--partition": partition}, "goes with --data")
    if window is None:
        _refuse(timed, "goes with --window")
    if as_json and format not in (None, "json"):
        raise ConfigError(f"--format: --json is given too, not {format}")
    each: list[Path | None] = [*adapters] or [None]
    below = [unknown_threshold(unknown_below, a) if unknown_below is not None else None for a in each]
    if not adapters and names is None:
        raise ConfigError("give --adapter, or --labels")
    length = parse_seconds(window, "--window") if window is not None else None
    windows = None
    if length is not None:
        windows = Windows(length, parse_seconds(stride, "--stride") if stride else length / 4, batch)
    request = Request(
        find_videos(videos), windows, Smoothing(parse_seconds(min_duration or "0s", "--min-duration")),
        "json" if as_json else format or "table", out, overlay, below, top or 3, batch, workers, seconds,
    )  # fmt: skip
    request.check()
    predictors: dict[str, Any]
    if exported:
        predictors = {exported[0].name: ExportedPredictor(exported[0])}
    else:
        predictors = {
            name: Predictor(model, names, template=template, views=views)
            for name, model in zip(adapter_names(adapters) or [""], load_models(backbone, base, adapters), strict=True)
        }
    if not run(predictors, request, lambda text: print(text, flush=True)):
        raise typer.Exit(1)


@command(epilog="Example: msta explain clip.mp4 --adapter runs/first --out why")
@computes("device", "precision")
def explain(
    video: Annotated[str, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Option(help="A folder for strip.png, overlay.mp4 and explanation.json.")],
    adapter: opt.Adapter = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    labels: opt.Labels = None,
    template: opt.Template = None,
    label: Annotated[str | None, typer.Option("--class", help="The class to explain. Default: the likeliest.")] = None,
    start: Annotated[str, typer.Option(help="Start of the part to explain.")] = "0s",
    end: Annotated[str | None, typer.Option(help="End of the part to explain.")] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of the integral. More are more exact, and take longer.")
    ] = 16,
    as_json: opt.AsJSON = False,
) -> None:
    """Show which patches of which frames, and which words of the prompt, speak for a class."""
    from msta.inference.arguments import class_names, parse_seconds
    from msta.inference.explain import explain as run
    from msta.inference.overlay import summary, write_explanation
    from msta.inference.predictor import Predictor

    names = class_names(labels) if labels is not None else None
    if adapter is None and names is None:
        raise ConfigError("give --adapter, or --labels")
    span = parse_seconds(start, "--start"), parse_seconds(end, "--end") if end is not None else None
    predictor = Predictor(load_model(backbone, base, adapter), names, template=template)
    explanation = run(predictor, video, label, span=span, steps=steps)
    data = write_explanation(explanation, video, out, span)
    print_result(data, as_json, summary(data, out))


@command(epilog='Example: msta search "someone falls" --in videos/ --backbone ViClip.pth --out found.html')
@computes("device", "precision")
def search(
    query: Annotated[str, typer.Argument(help="A sentence.")],
    folder: Annotated[Path, typer.Option("--in", help="A folder of videos.")],
    adapter: opt.Adapter = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    index: Annotated[
        Path | None, typer.Option(help="The file of the index, new or not. Default: in the folder, one per model.")
    ] = None,
    window: Annotated[str, typer.Option(help="Length of a moment.")] = "4s",
    stride: Annotated[
        str | None, typer.Option(help="Time from one moment to the next. Default: half a moment.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Moments to find.")] = 12,
    out: Annotated[Path | None, typer.Option(help="A page with pictures, .html.")] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Find the moments in a folder of videos that a sentence describes. The first search reads all of them."""
    from msta.files import check_writable
    from msta.inference.arguments import parse_seconds
    from msta.inference.output import clock
    from msta.inference.search import index_file, query_embedding, update_index, write_found
    from msta.inference.windows import Windows

    length = parse_seconds(window, "--window")
    windows = Windows(length, parse_seconds(stride, "--stride") if stride else length / 2)
    if out is not None:
        check_writable(out, "--out takes another name")
    model = load_model(backbone, base, adapter).eval()
    asked = query_embedding(model, query)
    with console.status("reading the folder") as status:
        made = update_index(
            model, folder, index or index_file(model, folder, windows), windows,
            lambda number, count, path: status.update(one_line(f"indexing {number} of {count}: {path}")),
        )  # fmt: skip
    found = made.nearest(asked, top)
    if out is not None:
        write_found(query, folder, found, made, out)
    lines = [one_line(f"{m.score:.3f}  {clock(m.start)} - {clock(m.end)}  {m.path}") for m in found]
    print_result([vars(moment) for moment in found], as_json, "\n".join(lines) or "No video could be read.")
    if made.closed:
        raise typer.Exit(1)


@command(epilog="Example: msta serve --adapters adapters/ --keys keys.txt --host 0.0.0.0")
@computes("device", "precision")
def serve(
    adapters: Annotated[Path, typer.Option(help="A folder with a sub-folder per adapter, all of one backbone.")],
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8000,
    root: Annotated[Path | None, typer.Option(help="A folder whose videos clients may name by path.")] = None,
    keys: Annotated[Path | None, typer.Option(help="API keys, one per line. Else: $MSTA_API_KEYS.")] = None,
    allow_anyone: Annotated[
        bool, typer.Option("--allow-anyone", help="Need no keys, even if others can reach the address.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes. Default: processors minus 1.")] = None,
    max_mb: Annotated[int, typer.Option(min=1, help="Megabytes per request.")] = 64,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds per video.")] = 600,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds per request.")] = 60,
    adapter_mb: Annotated[int, typer.Option(min=1, help="Megabytes of adapters kept in memory.")] = 512,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests at a time; three times as many may wait.")] = 64,
) -> None:
    """Answer over HTTP, with many adapters on one backbone. POST /v1/classify with file= and adapter=; see /docs.

    SIGTERM ends it after the requests that it has are answered.
    """
    try:
        from msta.inference.serving import FRAME_RATE
        from msta.serve.limits import Limits
        from msta.serve.server import check_system, read_keys
        from msta.serve.server import serve as run
    except ImportError as error:
        raise ConfigError(f"msta serve needs the package {error.name}: pip install 'msta[serve]'") from error
    check_system()
    limits = Limits(
        body_bytes=max_mb * 2**20, seconds=max_seconds, request_seconds=timeout, adapter_bytes=adapter_mb * 2**20,
        concurrent=concurrent, queue=3 * concurrent, frames=max(Limits.frames, round(max_seconds * FRAME_RATE)),
    )  # fmt: skip
    run(
        load_model(backbone, base, None).backbone, adapters, host=host, port=port, root=root, keys=read_keys(keys),
        allow_anyone=allow_anyone, workers=workers, limits=limits,
    )  # fmt: skip


@command(name="app", epilog="Example: msta app --adapter runs/first --in videos/")
@computes("device", "precision")
def app_(
    adapter: opt.Adapters = None,
    adapters: Annotated[
        Path | None, typer.Option(help="A folder with a sub-folder per adapter, or per run. All of one backbone.")
    ] = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    search_in: Annotated[Path | None, typer.Option("--in", help="The folder that the search suggests.")] = None,
    runs: Annotated[Path, typer.Option(help="The folder for trained adapters, which can be chosen at once.")] = Path(
        "msta-runs"
    ),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 7860,
    allow_anyone: Annotated[
        bool, typer.Option("--allow-anyone", help="Listen where others can reach it. There is no password.")
    ] = False,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds per video.")] = 3600,
) -> None:
    """Use it in a browser: predict, train an adapter from a few clips, search. Nothing leaves this computer.

    Ctrl-C ends it. A running training is saved first; msta train --resume continues it.
    """
    from msta.app.server import run

    run(
        adapter or [], adapters, backbone=backbone, base=base, search_in=search_in, runs=runs, host=host, port=port,
        allow_anyone=allow_anyone, seconds=max_seconds,
    )  # fmt: skip


@command(name="export", epilog="Example: msta export --adapter runs/first --out exported --precision int8")
def export_(
    out: Annotated[Path, typer.Option(help="A new folder.")],
    adapter: opt.Adapter = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    labels: opt.Labels = None,
    form: Annotated[str, typer.Option("--format", help="onnx or torch-export.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    tolerance: Annotated[float | None, typer.Option(min=0, help="Largest relative difference from torch.")] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Write the adapted model, with its classes, for ONNX Runtime or as a torch.export program.

    It is compared with torch first, and not written if it differs. docs/export.md says how to run it without torch.
    """
    from msta.inference.arguments import class_names
    from msta.inference.export import TOLERANCE
    from msta.inference.export import export as run
    from msta.inference.predictor import Predictor

    for option, value, known in (("--format", form, ("onnx", "torch-export")), ("--precision", precision, TOLERANCE)):
        if value not in known:
            raise ConfigError(f"{option}: expected one of {', '.join(known)}, got {value!r}")
    if adapter is None and labels is None:
        raise ConfigError("give --adapter, or --labels")
    names = class_names(labels) if labels is not None else None
    done = run(Predictor(load_model(backbone, base, adapter).cpu(), names), out, form, precision, tolerance)  # type: ignore[arg-type]
    frames = "any number of" if done["any_frames"] else done["frames"]
    lines = [f"{out}: {len(done['classes'])} classes, {frames} frames of {done['size']} px, {precision}"]
    for name, size in done["bytes"].items():
        lines.append(f"  {name}  {size / 1e6:.1f} MB, differs from torch by {done['differs_by'][name]:.1e}")
    print_result(done, as_json, "\n".join(lines))


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise if one of these options was given."""
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name}: {why}")


def _predict_catalog(
    data: Path, overrides: list[str] | None, out: Path | None, engine: Any, processes: int | None, partition: int,
    as_json: bool, *, adapter: list[Path], labels: Any, template: Any, **settings: Any,
) -> None:  # fmt: skip
    from msta.backbone.device import best_device, inference_precision
    from msta.inference.arguments import read_clips
    from msta.inference.bulk import Job, default_threads, predict_catalog

    if out is None:
        raise ConfigError("missing --out")
    if len(adapter) > 1:
        raise ConfigError("--data: goes with one --adapter")
    if not adapter and labels is None:
        raise ConfigError("give --adapter, or --labels")
    settled = data_settings(data, overrides, fold="none")
    clips, classes = read_clips(data, settled.read, settled.layout)
    job = Job(
        str(adapter[0].absolute()) if adapter else None, labels=tuple(labels) if labels else None,
        template=tuple(template) if template else None, threads=default_threads(processes),
        precision=inference_precision(best_device()), **settings,
    )  # fmt: skip
    done = predict_catalog(
        clips, classes, out, job, engine=engine, partition=partition, processes=processes,
        console=None if as_json else console,
    )  # fmt: skip
    text = f"{done['clips']} clips in {done['out']}; {done['unreadable']} could not be read, see the column error"
    print_result(done, as_json, text)
