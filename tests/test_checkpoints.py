"""Every file format gives the same function as the implementation it comes from, and every bad file one clear error."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, relative, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import msta
from msta.backbone.tensor_files import read_tensors
from msta.errors import CheckpointError

TINY = {"viclip_tiny.pth": "viclip_tiny_io.safetensors", "openai_clip_tiny.pt": "openai_clip_tiny_io.safetensors"}


def expected(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    io = load_file(DATA / TINY[name])
    return io, io["video_embedding"] if "video_embedding" in io else io["frame_embedding"].mean(1)


def check(backbone: msta.DualEncoder, name: str, tolerance: float = 1e-5) -> None:
    io, video = expected(name)
    assert relative(backbone.encode_video(io["video"]), video) < tolerance
    assert relative(backbone.encode_text(io["token_ids"]), io["text_embedding"]) < tolerance


def state(name: str) -> dict[str, torch.Tensor]:
    content = torch.load(DATA / name, weights_only=True)
    return content.get("model", content)


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("name", TINY)
def test_recorded_outputs_of_the_reference_implementations(name):
    backbone = msta.load_backbone(DATA / name)
    check(backbone, name)
    scale = 1 / state(name)["temp"] if "viclip" in name else state(name)["logit_scale"].exp()
    assert torch.allclose(backbone.logit_scale.exp(), scale)
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())
    mean = [0.485, 0.456, 0.406] if "viclip" in name else [0.48145466, 0.4578275, 0.40821073]
    assert torch.allclose(backbone.pixel_mean, torch.tensor(mean))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"module." + k: v for k, v in s.items()}},
    ],
)
def test_flat_and_wrapped_state_dicts(tmp_path, name, wrap):
    torch.save(wrap(state(name)), tmp_path / "file.pt")
    check(msta.load_backbone(tmp_path / "file.pt"), name)


def test_old_pickle_format_and_safetensors(tmp_path):
    torch.save(state("viclip_tiny.pth"), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    check(msta.load_backbone(tmp_path / "old.pth"), "viclip_tiny.pth")
    save_file(state("openai_clip_tiny.pt"), tmp_path / "new.safetensors")
    check(msta.load_backbone(tmp_path / "new.safetensors"), "openai_clip_tiny.pt")


@pytest.mark.parametrize("outer", ["", "module.", "module.clip_model."])
@pytest.mark.parametrize("token_embedding", ["", "text_encoder.", "prompt_learner."])
def test_fine_tuned_files_in_the_manner_of_vifi_clip(tmp_path, outer, token_embedding):
    renamed = {}
    for key, value in state("openai_clip_tiny.pt").items():
        if key.startswith("visual."):
            key = "image_encoder." + key.removeprefix("visual.")
        elif key.startswith("token_embedding"):
            key = token_embedding + key
        elif key != "logit_scale":
            key = "text_encoder." + key
        renamed[outer + key] = value
    renamed[outer + "prompt_learner.complete_text_embeddings"] = torch.zeros(5, 16, 64)
    torch.save({"model": renamed, "max_accuracy": 1.0}, tmp_path / "vifi.pth")
    backbone = msta.load_backbone(tmp_path / "vifi.pth")
    check(backbone, "openai_clip_tiny.pt")
    assert torch.allclose(backbone.pixel_mean, torch.tensor([0.485, 0.456, 0.406]))  # as X-CLIP's pipeline has it


def test_vifi_clip_without_its_token_embedding_takes_it_from_the_base(tmp_path):
    renamed = {k.replace("visual.", "image_encoder."): v for k, v in state("openai_clip_tiny.pt").items()}
    del renamed["token_embedding.weight"]
    torch.save(renamed, tmp_path / "vifi.pth")
    with pytest.raises(CheckpointError, match=r"vifi\.pth.*token_embedding.*base"):
        msta.load_backbone(tmp_path / "vifi.pth")
    check(msta.load_backbone(tmp_path / "vifi.pth", base=DATA / "openai_clip_tiny.pt"), "openai_clip_tiny.pt")


class _Scripted(nn.Module):
    """A module tree with the names of a state dict, to be scripted as OpenAI's archives are."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            module: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("half", [False, True])
def test_torchscript_archives_are_read_without_running_them(tmp_path, half, monkeypatch):
    tensors = {k: v.half() if half else v for k, v in state("openai_clip_tiny.pt").items()}
    torch.jit.script(_Scripted(tensors)).save(str(tmp_path / "ViT.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("torch.jit.load compiles the file's code"))
    check(msta.load_backbone(tmp_path / "ViT.pt"), "openai_clip_tiny.pt", tolerance=2e-2 if half else 1e-5)


def test_own_directory_round_trip(tmp_path, backbone):
    backbone.save(tmp_path / "mine")
    loaded = msta.load_backbone(tmp_path / "mine")
    assert loaded.fingerprint() == backbone.fingerprint()
    assert loaded.architecture == backbone.architecture
    video = torch.randn(1, 4, 3, 32, 32)
    assert torch.equal(loaded.encode_video(video), backbone.encode_video(video))
    assert torch.equal(loaded.tokenize(["a cat"]), backbone.tokenize(["a cat"]))
    with pytest.raises(msta.errors.MSTAError, match="mine.*exists"):
        backbone.save(tmp_path / "mine")


def test_random_architectures_load_by_name():
    assert msta.load_backbone("random:clip-b32").fingerprint() == msta.random_backbone("clip-b32").fingerprint()


# ---------------------------------------------------------------- Hugging Face


def hugging_face(folder: Path, *, eos: int = 99, act: str = "quick_gelu", shard: str | None = None, seed: int = 0):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=dict(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, vocab_size=100,
            max_position_embeddings=16, eos_token_id=eos, bos_token_id=98, pad_token_id=1, hidden_act=act, layer_norm_eps=1e-6,
        ),
        vision_config=dict(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=96, image_size=32,
            patch_size=8, hidden_act=act,
        ),
        projection_dim=24,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    with torch.no_grad():  # transformers starts biases and norms at 0 and 1, where a mix-up would not show
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "case",
    [{}, {"eos": 2}, {"act": "gelu"}, {"shard": "40KB"}, {"eos": 50, "seed": 1}],
    ids=lambda c: str(c) or "plain",
)
def test_hugging_face_clip_equals_transformers(tmp_path, case):
    model = hugging_face(tmp_path, **case)
    assert (tmp_path / "model.safetensors.index.json").exists() == ("shard" in case)
    backbone = msta.load_backbone(tmp_path)
    frames = torch.randn(2, 3, 3, 32, 32)
    ids = torch.randint(3, 98, (5, 16))
    ids[:, 9] = 99
    ids[2:, 4] = 50  # an end of text by id, not by height
    ids[:, 12:] = 0
    with torch.no_grad():
        video = model.get_image_features(frames.flatten(0, 1)).pooler_output.unflatten(0, (2, 3)).mean(1)
        text = model.get_text_features(ids).pooler_output
    assert relative(backbone.encode_video(frames), video) < 1e-5
    assert relative(backbone.encode_text(ids), text) < 1e-5
    assert torch.equal(backbone.logit_scale, model.logit_scale)


@pytest.mark.filterwarnings("ignore")
def test_bicubic_positions_equal_transformers(tmp_path):
    model = hugging_face(tmp_path)
    frames = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        theirs = model.get_image_features(frames, interpolate_pos_encoding=True).pooler_output
    assert relative(msta.load_backbone(tmp_path).encode_video(frames[:, None]), theirs) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_tokenizer_files_and_pixel_statistics(tmp_path):
    from transformers import CLIPTokenizer

    hugging_face(tmp_path)
    words = ["<|startoftext|>", "<|endoftext|>", "p", "u", "s", "h</w>", "a</w>", "pu", "sh</w>", "push</w>"]
    (tmp_path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\np u\ns h</w>\npu sh</w>\n")
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]})
    )
    theirs = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    backbone = msta.load_backbone(tmp_path)
    ids = backbone.tokenize(["A push", "push"])
    for row, text in zip(ids, ["A push", "push"], strict=True):
        reference = theirs(text)["input_ids"]
        assert row[: len(reference)].tolist() == reference
    assert torch.allclose(backbone.pixel_mean, torch.tensor([0.1, 0.2, 0.3]))
    theirs.save_pretrained(tmp_path)  # writes tokenizer.json, which is then preferred
    assert torch.equal(msta.load_backbone(tmp_path).tokenize(["A push", "push"]), ids)
    backbone.save(tmp_path / "ours")  # our own directory keeps the tokenizer
    assert torch.equal(msta.load_backbone(tmp_path / "ours").tokenize(["A push", "push"]), ids)


# ---------------------------------------------------------------- bad files


class _Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("protocol", ["torch", "old torch", "pickle"])
def test_nothing_in_a_pickle_is_executed(tmp_path, protocol):
    file, trace = tmp_path / "evil.pt", tmp_path / "executed"
    content = {"model": {"visual.proj": torch.zeros(2, 2)}, "bomb": _Bomb(trace)}
    if protocol == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=protocol == "torch")
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        msta.load_backbone(file)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_in_a_torchscript_archive_is_executed(tmp_path):
    import zipfile

    source, evil, trace = tmp_path / "good.pt", tmp_path / "evil.pt", tmp_path / "executed"
    torch.jit.script(_Scripted(state("openai_clip_tiny.pt"))).save(str(source))
    with zipfile.ZipFile(source) as good, zipfile.ZipFile(evil, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, pickle.dumps(_Bomb(trace)) if name.endswith("/data.pkl") else good.read(name))
    with pytest.raises(CheckpointError, match=r"evil\.pt.*mkdir"):
        msta.load_backbone(evil)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["pt", "old", "safetensors", "torchscript"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.98])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_truncated_file_is_named_with_its_format(tmp_path, kind, keep):
    tensors, file = state("openai_clip_tiny.pt"), tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pt")
    if kind == "safetensors":
        save_file(tensors, file)
    elif kind == "torchscript":
        torch.jit.script(_Scripted(tensors)).save(str(file))
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "pt")
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(
        CheckpointError, match=r"cut\.(pt|safetensors): looked like (a PyTorch|safetensors|a TorchScript)"
    ) as caught:
        msta.load_backbone(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual.ln_post.weight"), r"looked like OpenAI CLIP.*missing: video\.ln_post\.weight"),
        (lambda s: s.update({"visual.extra": torch.zeros(1)}), r"OpenAI CLIP.*unexpected: video\.extra"),
        (lambda s: s.pop("visual.conv1.weight"), r"OpenAI CLIP.*video\.patch_embedding\.weight is missing"),
        (lambda s: s.update({"visual.proj": torch.zeros(3, 64)}), r"of another size: video\.proj is \[3, 64\]"),
        (lambda s: s.update({"visual.attnpool.c_proj.weight": torch.zeros(1)}), "ResNet"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("visual.")], "no CLIP or ViCLIP"),
        (lambda s: s.clear(), "without a state dict"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_says_what_it_looked_like_and_what_is_wrong(tmp_path, change, message):
    tensors = state("openai_clip_tiny.pt")
    change(tensors)
    torch.save(tensors, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=rf"bad\.pt.*{message}|bad\.pt: a.*{message}"):
        msta.load_backbone(tmp_path / "bad.pt")


def test_long_lists_of_keys_are_cut_short(tmp_path):
    tensors = {k: v for k, v in state("viclip_tiny.pth").items() if ".ln_1." not in k}
    torch.save(tensors, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"looked like ViCLIP.*missing: .*ln_1.* and \d+ more"):
        msta.load_backbone(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"hello, I am text", "no checkpoint"), (b"\x00" * 64, "no checkpoint")],
)
def test_files_that_are_no_checkpoints(tmp_path, content, message):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"file\.pt: .*{message}"):
        msta.load_backbone(tmp_path / "file.pt")


def test_missing_paths_and_directories(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such file"):
        msta.load_backbone(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="a folder without weights"):
        msta.load_backbone(tmp_path)
    (tmp_path / "link.pt").symlink_to(tmp_path / "gone.pt")
    with pytest.raises(CheckpointError, match=r"link\.pt: No such file"):
        msta.load_backbone(tmp_path / "link.pt")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="'bert'"):
        msta.load_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="without weights"):
        msta.load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no valid JSON"):
        msta.load_backbone(tmp_path)


@pytest.mark.parametrize(
    "change", [{"colour": "red"}, {"image_size": 33}, {"image_size": "32"}, {"context_length": -1}, {"pixel_mean": [0, 0]},
               {"attention": "both"}, {"video": 3}],
)  # fmt: skip
def test_a_damaged_own_directory_is_named(tmp_path, change):
    msta.random_backbone(tiny()).save(tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config["architecture"].update(change)
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="mine"):
        msta.load_backbone(tmp_path / "mine")


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["pt", "safetensors", "old"]))
def test_a_file_with_bytes_changed_loads_or_is_named(tmp_path_factory, seed, kind):
    file = tmp_path_factory.mktemp("fuzz") / ("f.safetensors" if kind == "safetensors" else "f.pt")
    tensors = {"visual.proj": torch.zeros(4, 4), "visual.conv1.weight": torch.zeros(2, 3, 2, 2)}
    if kind == "safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "pt")
    content, random = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for _ in range(random.integers(1, 20)):
        content[random.integers(len(content))] = random.integers(256)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="fuzz"):  # what is intact is no whole CLIP
        msta.load_backbone(file)


def test_a_backbone_can_be_pickled_for_another_process(joint_backbone):
    again = pickle.loads(pickle.dumps(joint_backbone))
    assert torch.equal(again.tokenize(["a push"]), joint_backbone.tokenize(["a push"]))


class Config(dict):
    """As yacs's: a dict of a class of its own."""


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("beside", [argparse.Namespace(lr=1), Config(a=Config(b=1)), np.float64(81.2)], ids=str)
def test_objects_beside_the_weights_are_not_read_and_named(tmp_path, caplog, beside, new_format):
    weights = {"a": torch.randn(2, 3), "b": nn.Parameter(torch.zeros(2))}
    file = tmp_path / "c.pth"
    torch.save({"model": weights, "config": beside}, file, _use_new_zipfile_serialization=new_format)
    read = read_tensors(file)
    assert read.keys() == {"model/a", "model/b"}
    assert torch.equal(read["model/a"], weights["a"])
    if not isinstance(beside, float):
        assert type(beside).__name__ in caplog.text


def test_a_module_in_a_pickle_is_named_with_the_way_out(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "c.pth")
    with pytest.raises(
        CheckpointError, match=r"objects of torch.nn.modules.linear.Linear, .* keep its weights"
    ) as error:
        read_tensors(tmp_path / "c.pth")
    way_out = re.search(r"in Python: (.*)$", str(error.value))[1]
    exec(way_out.replace("'weights.pth'", repr(str(tmp_path / "weights.pth"))))
    assert read_tensors(tmp_path / "weights.pth").keys() == {"weight", "bias"}
    assert "\x1b" not in str(error.value)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match="Git LFS"):
        read_tensors(tmp_path / "model.safetensors")
