"""``msta export``: what it writes says what torch says, and runs without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KINDS, refused, relative, small, stir, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import write_video

import msta
from msta.adapters.task import Task
from msta.data.clips import ONE_VIEW, read_views
from msta.errors import CheckpointError, ConfigError, MSTAError
from msta.inference.export import export
from msta.inference.onnx_predictor import OnnxPredictor
from msta.inference.predictor import Predictor

pytest.importorskip("onnxscript", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

SOURCE = Path(msta.__file__).parents[1]


def member(attention: str, name: str = "msta") -> Predictor:
    model = msta.attach(msta.random_backbone(tiny(attention)), small(name, (3, 3), (2, 3), 1))
    model.task = Task(("push", "hug", "walk"))
    return Predictor(stir(model))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Predictor, OnnxPredictor, Path, dict]]:
    """By attention: the member, the predictor, its directory, what was described."""
    where, all_ = tmp_path_factory.mktemp("exports"), {}
    for attention in KINDS:
        one = member(attention)
        about = export(one, where / attention)
        all_[attention] = (one, OnnxPredictor(where / attention, threads=1), where / attention, about)
    return all_


@settings(max_examples=30)
@given(
    attention=st.sampled_from(KINDS),
    clips=st.integers(1, 5),
    frames=st.integers(1, 9),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_onnx_says_what_torch_says(made, attention, clips, frames, scale, seed):
    one, predictor, _, about = made[attention]
    assert about["any_frames"] == (attention != "joint")
    frames = frames if about["any_frames"] else 4
    generator = torch.Generator().manual_seed(seed)
    video = scale * torch.randn(clips, frames, 3, 32, 32, generator=generator)
    probabilities, embeddings = predictor.run(video.numpy())
    with torch.no_grad():
        expected = one.model.encode_video(video)
        assert relative(torch.from_numpy(embeddings), expected) < 1e-4
        assert np.abs(probabilities - one.probabilities(expected[None])).max() < 1e-4


@pytest.mark.parametrize("attention", KINDS)
def test_the_text_tower(made, attention):
    one, _, folder, about = made[attention]
    session = onnxruntime.InferenceSession(folder / "text.onnx", providers=["CPUExecutionProvider"])
    for texts in (["push"], ["a video of a hug.", "somebody walks very slowly", "x", "y", "z"]):
        ids = one.model.tokenize(texts)
        assert ids.shape[1] == about["context_length"]
        (found,) = session.run(None, {"input": ids.numpy()})
        with torch.no_grad():
            assert relative(torch.from_numpy(found), one.model.encode_text(ids)) < 1e-4


def test_files_without_torch(made, tmp_path):
    one, predictor, folder, _ = made["joint"]
    clip = write_video(tmp_path / "clip.mp4", 20)
    views = read_views(str(clip), one.format, ONE_VIEW)
    assert np.abs(predictor.read(clip) - views[0].numpy()).max() < 1e-6
    with torch.no_grad():
        expected = one.probabilities(one.model.encode_video(views)[None])[0]
    ranked = dict(predictor(clip))
    assert [ranked[name] for name in one.classes] == pytest.approx(expected.tolist(), abs=1e-4)
    code = (
        "import sys; sys.modules['torch'] = None\n"  # importing it would now fail
        "from msta.inference.onnx_predictor import main\n"
        f"sys.exit(main([{str(folder)!r}, {str(clip)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(ranked, key=ranked.get) in done.stdout.split(", ")[0]


def test_what_differs_is_not_written(tmp_path):
    with pytest.raises(MSTAError, match="int8 differs from torch by .*, more than 1e-07"):
        export(member("joint"), tmp_path / "x", precision="int8", tolerance=1e-7)
    assert not (tmp_path / "x").exists()


def test_torch_export(tmp_path):
    one = member("frame-wise")
    about = export(one, tmp_path / "x", "torch-export")
    module = torch.export.load(tmp_path / "x" / "video.pt2").module()
    video = torch.randn(3, 7, 3, 32, 32)
    with torch.no_grad():
        assert relative(module(video)[1], one.model.encode_video(video)) < 1e-4
    assert about["any_frames"]
    with pytest.raises(ConfigError, match="--precision fp16"):
        export(one, tmp_path / "y", "torch-export", "fp16")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "st-adapter", "aim", "adaptformer", "zero-shot", "bitfit", "full"])
@pytest.mark.parametrize("attention", KINDS)
def test_other_methods(tmp_path, name, attention):
    if refused(name, attention):
        with pytest.raises(ConfigError, match=name):
            member(attention, name)
        return
    about = export(member(attention, name), tmp_path / "x")
    assert max(about["differs_by"].values()) < 1e-4


@pytest.mark.parametrize("attention", ["joint", "frame-wise"])
def test_prompts_find_their_room_in_texts_of_any_number(tmp_path, attention):
    about = export(member(attention, "prompts"), tmp_path / "x")
    assert max(about["differs_by"].values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_less_precision_is_smaller_and_near(tmp_path, made, precision):
    _, _, _, whole = made["joint"]
    about = export(made["joint"][0], tmp_path / "x", precision=precision)
    assert about["bytes"]["video.onnx"] < whole["bytes"]["video.onnx"]
    assert OnnxPredictor(tmp_path / "x").run(np.zeros((1, 4, 3, 32, 32), np.float32))[0].sum() == pytest.approx(
        1, abs=0.01
    )


def test_damaged_exports_are_refused(made, tmp_path):
    with pytest.raises(CheckpointError, match=r"export\.json"):
        OnnxPredictor(tmp_path)
    (tmp_path / "export.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(CheckpointError, match="not an export"):
        OnnxPredictor(tmp_path)
    (tmp_path / "export.json").write_bytes((made["joint"][2] / "export.json").read_bytes())
    (tmp_path / "video.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"video\.onnx: cannot be loaded"):
        OnnxPredictor(tmp_path)
