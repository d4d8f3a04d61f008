"""``msta export``: an adapted model as files that run without this library, or without torch.

video.onnx, video.pt2   normalised clips [B, T, 3, H, W] -> probabilities [B, K], embeddings [B, D]; the classes'
                        embeddings are constants in it
text.onnx, text.pt2     token ids [K, L], zero-padded -> embeddings [K, D], for classes it was not exported with
export.json             classes, the clips it wants to see, what was measured when it was checked

What is traced is the plain computation (``exact_reference``): its shortcuts pay in torch, and hide from a tracer what
depends on the input. Every file is compared with torch before it is kept.
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
from msta.inference.shared import Member

Format = Literal["onnx", "torch-export"]
Precision = Literal["fp32", "fp16", "int8"]
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""Largest difference of an embedding's number from torch's, over the largest number, that is let through."""
_FILES = {"onnx": ("video.onnx", "text.onnx"), "torch-export": ("video.pt2", "text.pt2")}


def _plain(member: Member) -> AdaptedModel:
    """The same model, without the shortcuts."""
    model = copy.copy(member.model)
    model.exact_reference = True
    return model


class VideoWithClasses(nn.Module):
    """The adapted video tower and its classes, as one function of a clip."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.model, self.temperature = _plain(member), member.temperature
        self.register_buffer("text", member.text.clone())

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video [B, T, 3, H, W], normalised -> probabilities [B, K], embeddings [B, D]."""
        embeddings = self.model.encode_video(video)
        text: Tensor = self.text  # type: ignore[assignment]
        return (self.model.logits(embeddings, text) / self.temperature).softmax(-1), embeddings


class Text(nn.Module):
    """The adapted text tower."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.model = _plain(member)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids int64 [K, L], zero-padded -> embeddings [K, D]."""
        return self.model.encode_text(token_ids)


def export(
    member: Member, out: Path, form: Format = "onnx", precision: Precision = "fp32", tolerance: float | None = None
) -> dict[str, Any]:
    """Write an adapted model's directory.

    Args:
        member: the adapted model with the classes to bake in; on the CPU.
        out: a new directory.
        form: "onnx" or "torch-export".
        precision: of the weights; fp16 and int8 (weights alone, activations as they come) are for ONNX.
        tolerance: None: see TOLERANCE.

    Returns:
        What is in ``export.json``.

    Raises:
        ConfigError: a package is missing, or a precision the format has not.
        MSTAError: the result differs from torch by more than the tolerance, or cannot be made; nothing is written.
    """
    if form == "torch-export" and precision != "fp32":
        raise ConfigError(f"--precision {precision}: goes with --format onnx; torch-export keeps fp32")
    if form == "onnx":
        _need_onnx()
    allowed = TOLERANCE[precision] if tolerance is None else tolerance
    with new_directory(out) as folder:
        video, text = (folder / name for name in _FILES[form])
        clips = _random_clips(member)
        moving = _write_video(member, clips, video)
        ids = member.model.tokenize(list(member.classes)[:2] * 2)
        _write(Text(member), ids, {0: torch.export.Dim("texts", min=1, max=65536)}, text)
        if precision != "fp32":
            for path in (video, text):
                _make_smaller(path, precision)
        found = _difference(member, video, text, clips, ids, moving)
        worst = max(found.values())
        if not worst <= allowed:
            raise MSTAError(f"{out}: not written: {precision} differs from torch by {worst:.2g}, more than {allowed:g}")
        form_of_clips = member.format
        described = {
            "format": FORMAT,
            "msta_version": __version__,
            "as": form,
            "precision": precision,
            "classes": list(member.classes),
            "backbone": member.model.origin,
            "method": member.model.config.name,
            "frames": form_of_clips.frames,
            "any_frames": moving,
            "size": form_of_clips.size,
            "fit": form_of_clips.fit,
            "mean": list(form_of_clips.mean),
            "std": list(form_of_clips.std),
            "context_length": int(ids.shape[1]),
            "differs_by": {name: float(f"{value:.3g}") for name, value in found.items()},
            "bytes": {path.name: path.stat().st_size for path in (video, text)},
        }
        write_json(folder / DESCRIPTION, described)
    return described


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"msta export needs the package {error.name}: pip install 'msta[onnx]'") from error


# ---------------------------------------------------------------- tracing


def _write_video(member: Member, clips: Tensor, path: Path) -> bool:
    """Whether the number of frames may differ; joint attention's positions are made for one number."""
    batch = {0: torch.export.Dim("batch", min=1, max=65536)}
    if member.model.backbone.architecture.attention == "frame-wise":
        with contextlib.suppress(MSTAError):  # some methods know their frames
            _write(VideoWithClasses(member), clips, {**batch, 1: torch.export.Dim("frames", min=1, max=4096)}, path)
            return True
    _write(VideoWithClasses(member), clips, batch, path)
    return False


def _write(module: nn.Module, example: Tensor, moving: dict[int, Any], path: Path) -> None:
    try:
        with torch.no_grad(), _quietly():
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=(moving,), strict=False)
            if path.suffix == ".pt2":
                made = io.BytesIO()
                torch.export.save(program, made)
                write_bytes(path, made.getvalue())
                return
            names = ["probabilities", "embeddings"] if isinstance(module, VideoWithClasses) else ["embeddings"]
            exported = torch.onnx.export(
                program, (example,), dynamo=True, verbose=False, input_names=["input"], output_names=names
            )
            assert exported is not None
            exported.save(path)
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        raise MSTAError(f"{path.name}: cannot be traced: {in_short(error)}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter talks of things that are not this model's."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _make_smaller(path: Path, precision: Precision) -> None:
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


def _random_clips(member: Member, clips: int = 2, frames: int | None = None) -> Tensor:
    form = member.format
    generator = torch.Generator().manual_seed(0)
    return torch.randn(clips, frames or form.frames, 3, form.size, form.size, generator=generator)


def _difference(member: Member, video: Path, text: Path, clips: Tensor, ids: Tensor, moving: bool) -> dict[str, float]:
    """The largest difference of each file's embeddings from torch's, over their largest number; other batch sizes, and
    lengths if they may differ, than it was traced with.
    """
    run_video, run_text = _runner(video), _runner(text)
    others = [_random_clips(member, 1), _random_clips(member, 3, member.format.frames + 3 if moving else None), clips]
    with torch.no_grad():
        of_video = [_relative(run_video(other)[1], member.model.encode_video(other)) for other in others]
        of_text = [_relative(run_text(some)[0], member.model.encode_text(some)) for some in (ids, ids[:1])]
    return {video.name: max(of_video), text.name: max(of_text)}


def _runner(path: Path) -> Any:
    """A function from the input to the list of outputs, as arrays."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()

        def by_torch(x: Tensor) -> list[NDArray[np.float32]]:
            made = module(x)
            return [one.numpy() for one in (made if isinstance(made, tuple) else (made,))]

        return by_torch
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x.numpy()})


def _relative(found: NDArray[np.float32], expected: Tensor) -> float:
    right = expected.detach().numpy()
    return float(np.abs(found - right).max() / np.abs(right).max())
