"""``msta predict --data``: predict a catalog of any size, on local processes or on Ray Data.

The catalog is cut into partitions. Each is predicted in the same batches by whichever engine, and written to one
Parquet file, which is renamed when it is complete. Existing files are not computed again. So both engines give the same
files, and a run that was stopped continues.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import pickle
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

from msta.adapters.artefact import CLASSES, CONFIG, METRICS, WEIGHTS, adapter_in
from msta.backbone.device import best_device
from msta.data.catalog import Clip, fingerprint
from msta.data.clips import ONE_VIEW, Views, read_views
from msta.data.processes import check_main_guard
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import ConfigError, DataError, Interrupted, MSTAError, as_text, in_short
from msta.evaluation.metrics import Array
from msta.files import read_json, refuse_existing, replacing, sha256_of, write_json, write_parquet
from msta.inference.predictor import Predictor, load_model, probabilities_each

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
TOP = 5
JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """What every process needs to know to make the same predictions."""

    adapter: str | None = None  # its directory or its run's; None: the backbone alone
    backbone: str | None = None  # see :func:`msta.load_backbone`; None: the adapter's
    base: str | None = None  # see :func:`msta.load_backbone`
    labels: tuple[str, ...] | None = None  # the classes to choose from; None: the adapter's
    template: tuple[str, ...] | None = None  # of the class prompts; None: the adapter's
    views: Views = ONE_VIEW  # test views per clip
    batch: int = 8  # clips encoded together
    readers: int = 2  # threads per process that decode in advance
    threads: int = 1  # per process, for the computation
    precision: str = "fp32"  # see DualEncoder.computing

    def predictor(self, device: torch.device) -> Predictor:
        """Load the model."""
        model = load_model(self.adapter, self.backbone, self.base)
        model.backbone.precision = self.precision
        return Predictor(model.to(device), self.labels, template=self.template, views=self.views)

    def identity(self) -> dict[str, Any]:
        """All that the predictions depend on. The number of threads is not part of it."""
        settings = {k: v for k, v in asdict(self).items() if k not in ("readers", "threads")}
        if self.adapter is not None:
            files = [adapter_in(self.adapter) / name for name in (WEIGHTS, CONFIG, CLASSES, METRICS)]
            settings["files"] = [sha256_of(file) if file.is_file() else None for file in files]
        plain: dict[str, Any] = json.loads(json.dumps(settings))
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
    """Predict every clip, and write one row for each, in their order.

    Columns: clip, path, start, end, label (of the catalog, null if there is none), predicted, probability, top_labels
    and top_probabilities (five), probabilities (of all classes, whose names are in the metadata of the file), error
    (why a clip could not be read; the columns of the prediction are then null).

    Args:
        clips: what to predict. Their labels are indices of ``classes``, or -1.
        classes: the names in the catalog, which may differ from the classes to choose from.
        out: ``NAME.parquet`` for one file, else a folder for ``part-000000.parquet`` and so on.
        job: model and settings.
        engine: "local", or "ray": Ray Data (an extra), on this machine or, with ``RAY_ADDRESS``, on a cluster whose
            machines reach ``out`` and the clips by the same paths.
        partition: clips per partition.
        processes: each holds a model. None: one per GPU, or one.
        console: where to show progress; None: nowhere.

    Returns:
        "clips", "unreadable" (how many), "parts", "computed" (parts, this time), "out".

    Raises:
        Interrupted: by Ctrl-C; finished partitions are kept.
        MSTAError: ``out`` holds other predictions, a process died, or Ray is not installed.
    """
    if not clips:
        raise DataError("no clips to predict")
    if engine not in ENGINES:
        raise ConfigError(f"--engine: {engine!r} is none of {', '.join(ENGINES)}")
    one_file = out.suffix.lower() in (".parquet", ".pq")
    folder = out.with_name(f"{out.name}.parts") if one_file else out
    if one_file and out.exists():
        raise MSTAError(f"{out}: exists already; choose another name or remove it")
    _claim(folder, {"job": job.identity(), "clips": fingerprint(classes, clips), "partition": partition})
    parts = [Part(n, str(folder), tuple(clips[i : i + partition]), tuple(classes))
             for n, i in enumerate(range(0, len(clips), partition))]  # fmt: skip
    missing = [part for part in parts if not part.file.exists()]
    count = min(processes or max(1, torch.cuda.device_count()), max(1, len(missing)))
    run = {"local": _run_locally, "ray": _run_on_ray}[engine]
    try:
        with Bar(console=console or Console(quiet=True), transient=True) as bar:
            done = len(clips) - sum(len(part.clips) for part in missing)
            task = bar.add_task("predicting", total=len(clips), completed=done)
            for number in run(missing, job, count) if missing else ():
                bar.advance(task, len(parts[number].clips))
    except KeyboardInterrupt:
        finished = sum(part.file.exists() for part in parts)
        raise Interrupted(f"stopped after {finished} of {len(parts)} parts; the same command goes on") from None
    unreadable = sum(_count_errors(part.file) for part in parts)
    if one_file:
        _join([part.file for part in parts], out)
        shutil.rmtree(folder)
    return {
        "clips": len(clips), "unreadable": unreadable, "parts": len(parts), "computed": len(missing), "out": str(out)
    }  # fmt: skip


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Create the folder, or continue in it if it was created for the same job."""
    file = folder / JOB
    if not file.exists():
        refuse_existing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, about)
    elif read_json(file, MSTAError) != about:
        if any(folder.glob("part-*.parquet")):
            raise MSTAError(f"{folder}: holds predictions of other clips, or of another model; choose another name")
        write_json(file, about)  # the job before failed at its start


# ---------------------------------------------------------------- partitions


@dataclass(frozen=True)
class Part:
    """A partition: some clips, and the file for their predictions."""

    number: int
    folder: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]

    @property
    def file(self) -> Path:
        """The file of the predictions."""
        return Path(self.folder) / f"part-{self.number:06d}.parquet"

    def write(self, predictor: Predictor, job: Job) -> int:
        """Predict the clips and write the file. Returns the number of the partition.

        Raises DataError if a server does not answer.
        """
        import pyarrow as pa

        def read(clip: Clip) -> Tensor:
            return read_views(clip.path, predictor.format, predictor.views, clip.span)

        rows = []
        for clip, answer in probabilities_each([predictor], self.clips, read, batch=job.batch, workers=job.readers):
            if isinstance(answer, OutOfReach):
                raise DataError(str(answer))
            row = {"clip": as_text(clip.name), "path": as_text(clip.path), "start": clip.start, "end": clip.end}
            row["label"] = self.classes[clip.label] if clip.label >= 0 else None
            if isinstance(answer, DecodeError):
                row["error"] = as_text(answer.reason)
            else:
                row |= _columns(predictor.classes, answer[0])
            rows.append(row)
        write_parquet(self.file, pa.Table.from_pylist(rows, schema=_schema(pa, predictor.classes)))
        return self.number


def _columns(classes: Sequence[str], probabilities: Array) -> dict[str, Any]:
    """The columns of a prediction."""
    top = np.argsort(-probabilities, kind="stable")[:TOP]
    names, values = [classes[i] for i in top], probabilities[top].tolist()
    return {
        "predicted": names[0], "probability": values[0], "top_labels": names, "top_probabilities": values,
        "probabilities": probabilities.astype(np.float32),
    }  # fmt: skip


def _schema(pa: Any, classes: Sequence[str]) -> Any:
    text, number = pa.string(), pa.float64()
    columns = {"clip": text, "path": text, "start": number, "end": number, "label": text, "predicted": text}
    columns |= {"probability": pa.float32(), "top_labels": pa.list_(text), "top_probabilities": pa.list_(pa.float32())}
    columns |= {"probabilities": pa.list_(pa.float32()), "error": text}
    return pa.schema(list(columns.items()), metadata={"msta": json.dumps({"classes": list(classes)})})


def _count_errors(file: Path) -> int:
    import pyarrow.parquet as pq

    errors = pq.read_table(file, columns=["error"])["error"]
    return len(errors) - errors.null_count


def _join(files: Sequence[Path], out: Path) -> None:
    """Join many files into one, with one row group for each."""
    import pyarrow.parquet as pq

    with replacing(out) as aside, pq.ParquetWriter(aside, pq.read_schema(files[0]), compression="zstd") as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


# ---------------------------------------------------------------- engines


def _run_locally(parts: Sequence[Part], job: Job, count: int) -> Iterator[int]:
    """Predict on ``count`` processes. Yields the number of each partition when it is finished."""
    if count == 1:
        predictor = _load_predictor(job, 0)
        for part in parts:
            yield part.write(predictor, job)
        return
    check_main_guard("spawn")
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process' threads and GPU
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    with ProcessPoolExecutor(count, context, _start_process, (job, numbers)) as pool:
        try:
            futures = [pool.submit(_write_part, part) for part in parts]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise MSTAError(
                "a predicting process died, perhaps because memory ran out; the same command goes on"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_loaded: tuple[Predictor, Job] | MSTAError | None = None  # in a predicting process


def _start_process(job: Job, numbers: Any) -> None:
    global _loaded
    try:
        _loaded = _load_predictor(job, numbers.get()), job
    except MSTAError as error:  # raised here, it would only break the pool
        _loaded = error


def _write_part(part: Part) -> int:
    assert _loaded is not None
    if isinstance(_loaded, MSTAError):
        raise _loaded
    return part.write(*_loaded)


def _load_predictor(job: Job, number: int) -> Predictor:
    """Load the model; where there are several devices of the kind, onto that of process ``number``."""
    torch.set_num_threads(job.threads)
    device = best_device()
    if str(device) == "cuda":
        device = torch.device("cuda", number % torch.cuda.device_count())
    return job.predictor(device)


class _Actor:
    """A Ray actor with a model. It writes the partitions itself, so that no predictions are sent around."""

    def __init__(self, job: Job) -> None:
        self.job, self.predictor = job, _load_predictor(job, 0)  # Ray shows an actor only its own GPU

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"number": [pickle.loads(part).write(self.predictor, self.job) for part in batch["part"]]}


def _run_on_ray(parts: Sequence[Part], job: Job, count: int) -> Iterator[int]:
    """Predict on ``count`` actors of Ray Data. Yields the number of each partition when it is finished."""
    try:
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise ConfigError("--engine: ray is not installed; pip install 'msta[ray]'") from error
    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises plain exceptions if its processes do not start in time
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
        cause = getattr(error, "cause", None) or error  # of Ray's own error
        raise MSTAError(f"--engine ray: {in_short(cause)}; the same command goes on") from error
    finally:
        if started_here:
            with contextlib.suppress(Exception):
                ray.shutdown()


def default_threads(processes: int | None) -> int:
    """Computing threads per process, so that all processes together use the whole machine."""
    return max(1, (os.cpu_count() or 1) // (processes or max(1, torch.cuda.device_count())))
