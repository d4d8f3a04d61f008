"""``msta predict --data``: a catalog of any size, partition by partition, on local processes or on Ray Data.

A partition is a run of clips; whoever takes it, in whatever engine, reads the same clips in the same batches, and
writes one Parquet file aside, then renames it. What is there is not computed again. So both engines give the same
files, and one that was stopped goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress as Bar
from torch import Tensor

from msta.backbone.checkpoints import TOY, load_backbone
from msta.data.catalog import Clip, fingerprint
from msta.data.clips import ONE_VIEW, Views, read_views
from msta.data.decode import DecodeError, OutOfReach
from msta.errors import ConfigError, DataError, Interrupted, MSTAError, in_short
from msta.files import replacing, write_json
from msta.inference.predictor import Predictor, batched, read_ahead
from msta.methods import attach, load_adapter

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
TOP = 5
JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """What every process needs to know to make the same predictions.

    Attributes:
        adapter: its directory, or None for the backbone as it is.
        backbone: see :func:`msta.load_backbone`; None: the adapter's own.
        base: see :func:`msta.load_backbone`.
        labels: the classes to choose among; None: the adapter's.
        template: their prompts; None: the adapter's.
        views: test views a clip.
        batch: clips encoded at a time.
        readers: threads that decode ahead, in each process.
        threads: of the arithmetic, in each process.
    """

    adapter: str | None = None
    backbone: str | None = None
    base: str | None = None
    labels: tuple[str, ...] | None = None
    template: tuple[str, ...] | None = None
    views: Views = ONE_VIEW
    batch: int = 8
    readers: int = 2
    threads: int = 1

    def predictor(self, device: str = "cpu") -> Predictor:
        """Load the model."""
        backbone = load_backbone(self.backbone, base=self.base) if self.backbone else None
        if self.adapter is not None:
            model = load_adapter(self.adapter, backbone)
        else:
            model = attach(backbone or load_backbone(TOY), "zero-shot")
        return Predictor(model.to(device), self.labels, template=self.template, views=self.views)

    def identity(self) -> dict[str, Any]:
        """What predictions depend on: not how many threads make them."""
        said = {k: v for k, v in asdict(self).items() if k not in ("readers", "threads")}
        if self.adapter is not None:
            weights = Path(self.adapter) / "adapter_model.safetensors"
            said["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain


def predict_catalog(
    clips: Sequence[Clip],
    classes: Sequence[str],
    out: Path,
    job: Job,
    *,
    engine: Engine = "local",
    partition: int = 1000,
    processes: int | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Predict every clip, and write a row for each, in their order.

    Columns: clip, path, start, end, label (the catalog's, null if it has none), predicted, probability, top_labels and
    top_probabilities (five), probabilities (of all classes, named in the file's metadata), error (why a clip could not
    be read; the columns of the prediction are then null).

    Args:
        clips: what to predict; ``label`` is an index of ``classes``, or -1.
        classes: the catalog's names, which need not be those that are chosen among.
        out: ``NAME.parquet`` for one file, else a folder of ``part-000000.parquet`` and so on.
        job: model and settings.
        engine: "local", or "ray": Ray Data (an extra), on this machine or, by ``RAY_ADDRESS``, a cluster, where ``out``
            and the clips must be reachable by the same paths.
        partition: clips of a part.
        processes: that hold a model each; None: one a GPU, or one.
        console: where progress is shown; None: nowhere.

    Returns:
        "clips", "unreadable" (how many), "parts", "computed" (parts, this time), "out".

    Raises:
        Interrupted: by Ctrl-C; finished parts are kept.
        MSTAError: ``out`` holds predictions of something else; a process died; Ray is not installed.
    """
    if not clips:
        raise DataError("no clips to predict")
    if engine not in ENGINES:
        raise ConfigError(f"--engine: {engine!r} is none of {', '.join(ENGINES)}")
    whole = out.suffix.lower() in (".parquet", ".pq")
    folder = out.with_name(f"{out.name}.parts") if whole else out
    if whole and out.exists():
        raise MSTAError(f"{out}: exists already; choose another name or remove it")
    _claim(folder, {"job": job.identity(), "clips": fingerprint(classes, clips), "partition": partition})
    parts = [Part(n, str(folder), tuple(clips[i : i + partition]), tuple(classes))
             for n, i in enumerate(range(0, len(clips), partition))]  # fmt: skip
    missing = [part for part in parts if not part.file.exists()]
    count = min(processes or max(1, torch.cuda.device_count()), max(1, len(missing)))
    run = {"local": _on_local_processes, "ray": _on_ray}[engine]
    try:
        with Bar(console=console or Console(quiet=True), transient=True) as bar:
            task = bar.add_task(
                "predicting", total=len(clips), completed=len(clips) - sum(len(part.clips) for part in missing)
            )
            for number in run(missing, job, count) if missing else ():
                bar.advance(task, len(parts[number].clips))
    except KeyboardInterrupt:
        done = sum(part.file.exists() for part in parts)
        raise Interrupted(f"stopped after {done} of {len(parts)} parts; the same command goes on") from None
    unreadable = sum(_errors(part.file) for part in parts)
    if whole:
        _join([part.file for part in parts], out)
        shutil.rmtree(folder)
    return {
        "clips": len(clips), "unreadable": unreadable, "parts": len(parts), "computed": len(missing), "out": str(out)
    }  # fmt: skip


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Take a folder, or go on in one that was taken for the same."""
    file = folder / JOB
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != about:
            raise MSTAError(f"{folder}: holds predictions of other clips, or of another model; choose another name")
    elif folder.exists() and any(folder.iterdir()):
        raise MSTAError(f"{folder}: exists already, with other contents; choose another name or remove it")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, about)


# ---------------------------------------------------------------- a part


@dataclass(frozen=True)
class Part:
    """A run of clips, and the file their predictions go to."""

    number: int
    folder: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]

    @property
    def file(self) -> Path:
        """Of its predictions."""
        return Path(self.folder) / f"part-{self.number:06d}.parquet"

    def write(self, predictor: Predictor, job: Job) -> int:
        """Predict its clips and write the file. Returns its number.

        Raises:
            DataError: a server does not answer.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, list[Any]] = {name: [] for name in _schema(pa, predictor.classes).names}
        for clip, found in _probabilities(predictor, self.clips, job):
            label = self.classes[clip.label] if clip.label >= 0 else None
            row = {
                "clip": _text(clip.name),
                "path": _text(clip.path),
                "start": clip.start,
                "end": clip.end,
                "label": label,
            }
            for name, value in (row | _answer(predictor.classes, found)).items():
                columns[name].append(value)
        with replacing(self.file) as aside:
            pq.write_table(pa.table(columns, schema=_schema(pa, predictor.classes)), aside, compression="zstd")
        return self.number


def _probabilities(
    predictor: Predictor, clips: Sequence[Clip], job: Job
) -> Iterator[tuple[Clip, np.ndarray | DecodeError]]:
    """Each clip with its classes' probabilities [K], or why there are none."""

    def read(clip: Any) -> Tensor:
        return read_views(clip.path, predictor.format, predictor.views, clip.span)

    ahead: Any = read_ahead(clips, read, job.readers)  # type: ignore[arg-type]
    for group in batched(ahead, job.batch):
        readable = [video for _, video in group if isinstance(video, Tensor)]
        answers: Iterator[np.ndarray] = iter(())
        if readable:
            views = torch.cat(readable).to(predictor.text.device)
            with torch.inference_mode():
                embeddings = predictor.model.encode_video(views).unflatten(0, (len(readable), -1)).transpose(0, 1)
            answers = iter(predictor.probabilities(embeddings))
        for clip, video in group:
            if isinstance(video, OutOfReach):
                raise DataError(str(video))
            yield clip, video if isinstance(video, DecodeError) else next(answers)


def _answer(classes: Sequence[str], found: np.ndarray | DecodeError) -> dict[str, Any]:
    """The columns of a prediction."""
    if isinstance(found, DecodeError):
        nothing = ("predicted", "probability", "top_labels", "top_probabilities", "probabilities")
        return {**dict.fromkeys(nothing), "error": _text(found.reason)}
    top = np.argsort(-found, kind="stable")[:TOP]
    names, values = [classes[i] for i in top], found[top].tolist()
    return {
        "predicted": names[0], "probability": values[0], "top_labels": names, "top_probabilities": values,
        "probabilities": found.astype(np.float32), "error": None,
    }  # fmt: skip


def _schema(pa: Any, classes: Sequence[str]) -> Any:
    text, number = pa.string(), pa.float64()
    columns = {"clip": text, "path": text, "start": number, "end": number, "label": text, "predicted": text}
    columns |= {"probability": pa.float32(), "top_labels": pa.list_(text), "top_probabilities": pa.list_(pa.float32())}
    columns |= {"probabilities": pa.list_(pa.float32()), "error": text}
    return pa.schema(list(columns.items()), metadata={"msta": json.dumps({"classes": list(classes)})})


def _text(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _errors(file: Path) -> int:
    """Clips of a part that could not be read."""
    import pyarrow.parquet as pq

    errors = pq.read_table(file, columns=["error"])["error"]
    return len(errors) - errors.null_count


def _join(files: Sequence[Path], out: Path) -> None:
    """One file of many, a row group each."""
    import pyarrow.parquet as pq

    with replacing(out) as aside, pq.ParquetWriter(aside, pq.read_schema(files[0]), compression="zstd") as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


# ---------------------------------------------------------------- engines


def _on_local_processes(parts: Sequence[Part], job: Job, count: int) -> Iterator[int]:
    """Numbers of parts, as they are finished."""
    if count == 1:
        predictor = _start(job, 0)
        for part in parts:
            yield part.write(predictor, job)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process' threads and GPU
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    with ProcessPoolExecutor(count, context, _begin, (job, numbers)) as pool:
        try:
            futures = [pool.submit(_take, part) for part in parts]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise MSTAError(
                "a predicting process died, perhaps for want of memory; the same command goes on"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_mine: tuple[Predictor, Job] | None = None  # of a predicting process


def _begin(job: Job, numbers: Any) -> None:
    global _mine
    _mine = _start(job, numbers.get()), job


def _take(part: Part) -> int:
    assert _mine is not None
    return part.write(*_mine)


def _start(job: Job, number: int) -> Predictor:
    """The model, on the process's own GPU if there are any."""
    gpus = torch.cuda.device_count()
    torch.set_num_threads(job.threads)
    return job.predictor(f"cuda:{number % gpus}" if gpus else "cpu")


class _Actor:
    """A Ray actor with a model. It writes the parts, so that no prediction travels."""

    def __init__(self, job: Job) -> None:
        self.job, self.predictor = job, _start(job, 0)  # Ray shows an actor its own GPU alone

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import pickle

        return {"number": [pickle.loads(part).write(self.predictor, self.job) for part in batch["part"]]}


def _on_ray(parts: Sequence[Part], job: Job, count: int) -> Iterator[int]:
    """The same on Ray Data's actors."""
    import pickle

    try:
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise ConfigError("--engine: ray is not installed; pip install 'msta[ray]'") from error
    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises plain ones where its own processes do not start in time
            raise MSTAError(f"--engine ray: Ray does not start: {in_short(error)}") from error
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        table = ray.data.from_items([{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
        done = table.map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            concurrency=count,
            num_cpus=job.threads,
            num_gpus=1 if torch.cuda.is_available() else 0,
        )
        for row in done.iter_rows():
            yield int(row["number"])
    except ray.exceptions.RayError as error:
        raise MSTAError(f"--engine ray: {in_short(_cause(error))}; the same command goes on") from error
    finally:
        if started_here:
            with contextlib.suppress(Exception):
                ray.shutdown()


def _cause(error: BaseException) -> BaseException:
    """What went wrong in Ray's actor, below Ray's own words."""
    return getattr(error, "cause", None) or error


def default_threads(processes: int | None) -> int:
    """Arithmetic threads a process, so that all of them together fill the machine."""
    return max(1, (os.cpu_count() or 1) // (processes or max(1, torch.cuda.device_count())))
