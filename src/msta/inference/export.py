"""``msta export``: an adapted model as files that run without this library, or without torch.

video.onnx, video.pt2   normalised clips [B, T, 3, H, W] -> probabilities [B, K], embeddings [B, D]; the class
                        embeddings are constants in it
text.onnx, text.pt2     token ids [K, L], zero-padded -> embeddings [K, D], for other classes
export.json             the classes, the clip format, and how much the files differ from torch

The plain computation (``exact_reference``) is traced, because the shortcuts hide from a tracer what depends on the
input. Every file is compared with torch before it is kept.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msta._version import __version__
from msta.adapters.model import AdaptedModel
from msta.errors import ConfigError, MSTAError, in_short
from msta.files import new_directory, write_bytes, write_json
from msta.inference.onnx_predictor import DESCRIPTION, FORMAT
from msta.inference.predictor import Predictor

Format = Literal["onnx", "torch-export"]
Precision = Literal["fp32", "fp16", "int8"]
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""The largest allowed difference of an embedding from torch's, relative to its largest number."""
_FILES = {"onnx": ("video.onnx", "text.onnx"), "torch-export": ("video.pt2", "text.pt2")}


def _without_shortcuts(model: AdaptedModel) -> AdaptedModel:
    model = copy.copy(model)
    model.exact_reference = True
    return model


class VideoClassifier(nn.Module):
    """The adapted video tower with its classes, as one function of a clip."""

    def __init__(self, adapter: Predictor) -> None:
        super().__init__()
        self.model, self.temperature = _without_shortcuts(adapter.model), adapter.temperature
        self.register_buffer("text", adapter.text.clone())

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video [B, T, 3, H, W], normalised -> probabilities [B, K], embeddings [B, D]."""
        embeddings = self.model.encode_video(video)
        text: Tensor = self.text  # type: ignore[assignment]
        return (self.model.logits(embeddings, text) / self.temperature).softmax(-1), embeddings


class TextEncoder(nn.Module):
    """The adapted text tower."""

    def __init__(self, adapter: Predictor) -> None:
        super().__init__()
        self.model = _without_shortcuts(adapter.model)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids int64 [K, L], zero-padded -> embeddings [K, D]."""
        return self.model.encode_text(token_ids)


def export(
    adapter: Predictor,
    out: Path,
    form: Format = "onnx",
    precision: Precision = "fp32",
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write an adapted model into a new directory.

    Args:
        adapter: the adapted model with the classes to include; on the CPU.
        out: the new directory.
        form: "onnx" or "torch-export".
        precision: of the weights. fp16 and int8 (of the weights only) are for ONNX.
        tolerance: None: see TOLERANCE.

    Returns:
        The content of ``export.json``.

    Raises:
        ConfigError: a package is missing, or the format has no such precision.
        MSTAError: the result cannot be made or differs from torch by more than the tolerance. Nothing is written.
    """
    if form == "torch-export" and precision != "fp32":
        raise ConfigError(f"--precision {precision}: goes with --format onnx; torch-export keeps fp32")
    if form == "onnx":
        _need_onnx()
    allowed = TOLERANCE[precision] if tolerance is None else tolerance
    with new_directory(out) as folder:
        video, text = (folder / name for name in _FILES[form])
        clips = _random_clips(adapter)
        any_frames = _write_video(adapter, clips, video)
        ids = adapter.model.tokenize(list(adapter.classes)[:2] * 2)
        _write(TextEncoder(adapter), ids, {0: torch.export.Dim("texts", min=1, max=65536)}, text)
        if precision != "fp32":
            for path in (video, text):
                _reduce_precision(path, precision)
        differences = _differences(adapter, video, text, clips, ids, any_frames)
        worst = max(differences.values())
        if not worst <= allowed:
            raise MSTAError(f"{out}: not written: {precision} differs from torch by {worst:.2g}, more than {allowed:g}")
        clip_format = adapter.format
        description = {
            "format": FORMAT,
            "msta_version": __version__,
            "as": form,
            "precision": precision,
            "classes": list(adapter.classes),
            "backbone": adapter.model.origin,
            "method": adapter.model.config.name,
            "frames": clip_format.frames,
            "any_frames": any_frames,
            "size": clip_format.size,
            "fit": clip_format.fit,
            "mean": list(clip_format.mean),
            "std": list(clip_format.std),
            "context_length": int(ids.shape[1]),
            "differs_by": {name: float(f"{value:.3g}") for name, value in differences.items()},
            "bytes": {path.name: path.stat().st_size for path in (video, text)},
        }
        write_json(folder / DESCRIPTION, description)
    return description


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"msta export needs the package {error.name}: pip install 'msta[onnx]'") from error


# ---------------------------------------------------------------- tracing


def _write_video(adapter: Predictor, clips: Tensor, path: Path) -> bool:
    """Write the video tower. Returns whether clips may have any number of frames: not with joint attention."""
    batch = {0: torch.export.Dim("batch", min=1, max=65536)}
    if adapter.model.backbone.architecture.attention == "frame-wise":
        with contextlib.suppress(MSTAError):  # some methods need a fixed number of frames
            _write(VideoClassifier(adapter), clips, {**batch, 1: torch.export.Dim("frames", min=1, max=4096)}, path)
            return True
    _write(VideoClassifier(adapter), clips, batch, path)
    return False


def _write(module: nn.Module, example: Tensor, dynamic: dict[int, Any], path: Path) -> None:
    try:
        with torch.no_grad(), _quietly():
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=(dynamic,), strict=False)
            if path.suffix == ".pt2":
                made = io.BytesIO()
                torch.export.save(program, made)
                write_bytes(path, made.getvalue())
                return
            names = ["probabilities", "embeddings"] if isinstance(module, VideoClassifier) else ["embeddings"]
            exported = torch.onnx.export(
                program, (example,), dynamo=True, verbose=False, input_names=["input"], output_names=names
            )
            assert exported is not None
            exported.save(path)
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        raise MSTAError(f"{path.name}: cannot be traced: {in_short(error)}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter, whose messages do not concern this model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reduce_precision(path: Path, precision: Precision) -> None:
    import onnx

    wide = path.with_suffix(".wide.onnx")
    path.rename(wide)
    try:
        with _quietly():
            if precision == "int8":
                from onnxruntime.quantization import QuantType, quantize_dynamic

                quantize_dynamic(
                    wide, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
                )
            else:
                from onnxruntime.transformers.float16 import convert_float_to_float16

                onnx.save(convert_float_to_float16(onnx.load(wide), keep_io_types=True), path)
    finally:
        wide.unlink()


# ---------------------------------------------------------------- checking


def _random_clips(adapter: Predictor, clips: int = 2, frames: int | None = None) -> Tensor:
    form = adapter.format
    generator = torch.Generator().manual_seed(0)
    return torch.randn(clips, frames or form.frames, 3, form.size, form.size, generator=generator)


def _differences(
    adapter: Predictor, video: Path, text: Path, clips: Tensor, ids: Tensor, any_frames: bool
) -> dict[str, float]:
    """The largest relative difference of each file's embeddings from torch's, over several batch sizes and lengths."""
    run_video, run_text = _runner(video), _runner(text)
    others = [
        _random_clips(adapter, 1),
        _random_clips(adapter, 3, adapter.format.frames + 3 if any_frames else None),
        clips,
    ]
    with torch.no_grad():
        of_video = [_relative(run_video(other)[1], adapter.model.encode_video(other)) for other in others]
        of_text = [_relative(run_text(some)[0], adapter.model.encode_text(some)) for some in (ids, ids[:1])]
    return {video.name: max(of_video), text.name: max(of_text)}


def _runner(path: Path) -> Any:
    """A function from the input to the list of outputs, as arrays."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()

        def run(x: Tensor) -> list[NDArray[np.float32]]:
            outputs = module(x)
            return [one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs,))]

        return run
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x.numpy()})


def _relative(actual: NDArray[np.float32], expected: Tensor) -> float:
    reference = expected.numpy()
    return float(np.abs(actual - reference).max() / np.abs(reference).max())
