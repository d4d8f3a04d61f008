"""Every family of backbones gives what the library it comes from gives, or is refused; nothing is guessed in silence."""

from __future__ import annotations

import html
import json
import shutil
import string
from pathlib import Path

import ftfy
import pytest
import torch
from conftest import DATA, relative
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import msta
from msta.backbone.architecture import CLIP_MEAN
from msta.errors import CheckpointError

OPEN_CLIP = DATA / "open_clip"
FAMILIES = ["gelu-wide-heads", "quick-gelu", "clipa", "worldwide", "siglip", "pe-core"]
TEXTS = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))


def options(family: str) -> str:
    """timm's towers were made narrower than their names say."""
    return "?heads=3" if family in ("siglip", "pe-core") else ""


def open_clip_backbone(family: str, folder: Path | None = None):
    return msta.load_backbone(f"{folder or OPEN_CLIP / family}{options(family)}")


def check(backbone, family: str) -> None:
    io = load_file(OPEN_CLIP / family / "io.safetensors")
    frames, ids = io["frames"], io["ids"]
    assert relative(backbone.encode_video(frames[:, None]), io["image"]) < 1e-5
    assert relative(backbone.encode_video(frames[None]), io["image"].mean(0, keepdim=True)) < 1e-5
    assert relative(backbone.encode_text(ids), io["text"]) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_open_clip_folders_equal_open_clip(family, tmp_path):
    backbone = open_clip_backbone(family)
    check(backbone, family)
    assert torch.allclose(backbone.pixel_mean, torch.tensor([0.4, 0.5, 0.6]))
    assert torch.allclose(backbone.pixel_std, torch.tensor([0.2, 0.3, 0.4]))
    assert backbone.architecture.fit == "squash"
    assert (backbone.logit_bias is not None) == (family == "siglip")
    assert "open_clip_config.json" in backbone.origins["mean"]
    backbone.save(tmp_path / "ours")
    check(msta.load_backbone(tmp_path / "ours"), family)
    folder = shutil.copytree(OPEN_CLIP / family, tmp_path / "bin")
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "open_clip_pytorch_model.bin")
    check(open_clip_backbone(family, folder), family)
    check(msta.load_backbone(f"{folder / 'open_clip_pytorch_model.bin'}{options(family)}"), family)


def test_the_perception_encoders_own_file_equals_open_clips(tmp_path):
    """Its names, by the table with which timm 1.0.31 turns them into its own (_convert_pe), backwards."""
    state = load_file(OPEN_CLIP / "pe-core" / "open_clip_model.safetensors")
    state["visual.trunk.head.bias"] = torch.zeros(24)  # the original has none
    folder = shutil.copytree(OPEN_CLIP / "pe-core", tmp_path / "timm")
    save_file(state, folder / "open_clip_model.safetensors")
    theirs = {}
    swaps = [("visual.trunk.", "visual."), ("patch_embed.proj", "conv1"), ("cls_token", "class_embedding"),
             ("visual.pos_embed", "visual.positional_embedding"), ("visual.blocks.", "visual.transformer.resblocks."),
             ("norm_pre", "ln_pre"), ("visual.norm.", "visual.ln_post."), ("attn.qkv.", "attn.in_proj_"),
             ("attn.proj.", "attn.out_proj."), ("attn_pool.norm.", "attn_pool.layernorm."), ("norm1.", "ln_1."),
             ("norm2.", "ln_2."), ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."), ("latent", "probe"),
             ("attn_pool.proj.", "attn_pool.attn.out_proj.")]  # fmt: skip
    for name, tensor in state.items():
        ours = name.removeprefix("text.") if name.startswith("text.") else name
        for timm, own in swaps if name.startswith("visual.") else ():
            ours = ours.replace(timm, own)
        theirs[ours] = tensor.squeeze(0) if name.endswith(("pos_embed", "cls_token")) else tensor
    theirs["visual.class_embedding"] = theirs["visual.class_embedding"].flatten()
    theirs["visual.proj"] = theirs.pop("visual.head.weight").T
    del theirs["visual.head.bias"]
    for part in ("weight", "bias"):
        q, kv = (theirs.pop(f"visual.attn_pool.{layer}.{part}") for layer in ("q", "kv"))
        theirs[f"visual.attn_pool.attn.in_proj_{part}"] = torch.cat((q, kv))
    torch.save({name: tensor.contiguous() for name, tensor in theirs.items()}, tmp_path / "PE.pt")
    said = "heads=3&text_heads=4"
    own, timm = msta.load_backbone(f"{tmp_path / 'PE.pt'}?{said}"), open_clip_backbone("pe-core", folder)
    video, ids = torch.randn(2, 2, 3, 32, 32), load_file(OPEN_CLIP / "pe-core" / "io.safetensors")["ids"]
    assert relative(own.encode_video(video), timm.encode_video(video)) < 1e-6
    assert relative(own.encode_text(ids), timm.encode_text(ids)) < 1e-6
    assert own.pixel_mean.tolist() == [0.5] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exact_reference_agrees(family):
    backbone, video = open_clip_backbone(family), torch.randn(2, 3, 3, 32, 32)
    ids = load_file(OPEN_CLIP / family / "io.safetensors")["ids"]
    plain = msta.attach(backbone, "zero-shot", exact_reference=True)
    assert relative(backbone.encode_video(video), plain.encode_video(video)) < 1e-5
    assert relative(backbone.encode_text(ids), plain.encode_text(ids)) < 1e-5


@pytest.mark.parametrize("family", ["siglip", "pe-core"])
def test_a_tower_of_timm_that_is_not_as_wide_as_its_name_says_is_asked_about(family):
    with pytest.raises(CheckpointError, match=r"nothing says its heads; say it: \?heads="):
        msta.load_backbone(OPEN_CLIP / family)


def changed(tmp_path: Path, family: str, section: str, key: str, value: object) -> Path:
    folder = shutil.copytree(OPEN_CLIP / family, tmp_path / "changed")
    config = json.loads((folder / "open_clip_config.json").read_text())
    (config["model_cfg"] if not section else config["model_cfg"][section])[key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("vision_cfg", "layers", 4), ("vision_cfg", "width", 64), ("vision_cfg", "attentional_pool", True),
        ("vision_cfg", "ls_init_value", 1e-4), ("vision_cfg", "pool_type", "avg"), ("vision_cfg", "image_size", 64),
        ("vision_cfg", "qk_norm", True), ("vision_cfg", "timm_model_name", "convnext_base"), ("text_cfg", "layers", 3),
        ("text_cfg", "hf_model_name", "roberta-base"), ("text_cfg", "embed_cls", True), ("text_cfg", "pool_type", "first"),
        ("text_cfg", "vocab_size", 513), ("text_cfg", "context_length", 77), ("text_cfg", "proj_bias", True),
        ("text_cfg", "proj_type", "mlp"), ("", "embed_dim", 32), ("", "multimodal_cfg", {}), ("vision_cfg", "no_ln_pre", True),
    ],
)  # fmt: skip
def test_a_config_that_asks_for_something_else_is_refused(tmp_path, section, key, value):
    folder = changed(tmp_path, "gelu-wide-heads", section, key, value)
    with pytest.raises(CheckpointError, match=str(folder)) as error:
        msta.load_backbone(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("", "quick_gelu", True), ("vision_cfg", "head_width", 16), ("text_cfg", "heads", 2), ("text_cfg", "no_causal_mask", True),
        ("vision_cfg", "act_kwargs", {"approximate": "tanh"}), ("vision_cfg", "norm_kwargs", {"eps": 1e-2}),
        ("text_cfg", "norm_kwargs", {"eps": 1e-2}), ("text_cfg", "pool_type", "last"),
    ],
)  # fmt: skip
def test_a_config_that_says_something_else_is_followed(tmp_path, section, key, value):
    io = load_file(OPEN_CLIP / "gelu-wide-heads" / "io.safetensors")
    backbone = msta.load_backbone(changed(tmp_path, "gelu-wide-heads", section, key, value))
    moved = relative(backbone.encode_video(io["frames"][:, None]), io["image"])
    moved = max(moved, relative(backbone.encode_text(io["ids"]), io["text"]))
    assert moved > 1e-5
    assert backbone.fingerprint() != msta.load_backbone(OPEN_CLIP / "gelu-wide-heads").fingerprint()


# ---------------------------------------------------------------- Hugging Face


def siglip(folder: Path):
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    shape = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80)
    text = {**shape, "vocab_size": 300, "max_position_embeddings": 16, "projection_size": 48}
    config = SiglipConfig(text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 8})
    model = SiglipModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    write_tokenizer(folder, {"unk": "<unk>", "end": "</s>"}, 300)
    return model


def write_tokenizer(folder: Path, special: dict[str, str], size: int, start: str | None = None) -> None:
    """A tokenizer.json that was trained on a few words, and adds an end token, as SentencePiece's do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    names = ["<pad>", special["end"], special["unk"], *([start] if start else [])]
    trainer = trainers.UnigramTrainer(vocab_size=size - 1, special_tokens=names, unk_token=special["unk"])
    tokenizer.train_from_iterator([text.lower() for text in TEXTS], trainer)
    around = f"{start + ' ' if start else ''}$A {special['end']}"
    ids = [(name, tokenizer.token_to_id(name)) for name in names]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.filterwarnings("ignore")
def test_siglip_equals_transformers(tmp_path):
    from transformers import PreTrainedTokenizerFast

    model = siglip(tmp_path)
    backbone = msta.load_backbone(tmp_path)
    frames, ids = torch.randn(2, 3, 3, 32, 32), torch.randint(0, 300, (5, 16))
    with torch.no_grad():
        video = model.get_image_features(frames.flatten(0, 1)).pooler_output.unflatten(0, (2, 3)).mean(1)
        text = model.get_text_features(ids).pooler_output
    assert relative(backbone.encode_video(frames), video) < 1e-5
    assert relative(backbone.encode_text(ids), text) < 1e-5
    assert float(backbone.logit_scale) == float(model.logit_scale)
    assert float(backbone.logit_bias) == float(model.logit_bias)
    assert backbone.pixel_mean.tolist() == [0.5] * 3
    assert backbone.architecture.fit == "squash"
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="</s>", eos_token="</s>"
    )
    cleaned = [" ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split()) for text in TEXTS]
    expected = theirs(cleaned, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
    assert torch.equal(backbone.tokenize(TEXTS), expected)
    (tmp_path / "other").mkdir()
    write_tokenizer(tmp_path / "other", {"unk": "<unk>", "end": "</s>"}, 300, start="<s>")
    other = msta.load_backbone(f"{tmp_path}?tokenizer={tmp_path / 'other'}")  # what the user says comes first
    assert not torch.equal(other.tokenize(TEXTS), expected)


def test_siglip_2_has_the_tokenizer_of_transformers(tmp_path):
    from transformers import Siglip2Tokenizer

    siglip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        msta.load_backbone(tmp_path)
    letters = sorted({letter for text in TEXTS for letter in text.lower()} - {" "})
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters[:290]]
    theirs = Siglip2Tokenizer({name: i for i, name in enumerate(names)}, [], padding_side="right")
    theirs.save_pretrained(tmp_path)
    ids = msta.load_backbone(tmp_path).tokenize(TEXTS)
    expected = theirs(TEXTS, padding="max_length", max_length=15, truncation=True, return_tensors="pt")["input_ids"]
    for row, reference in zip(ids, expected, strict=True):
        words = int((reference != 0).sum())
        assert row.tolist() == [*reference[:words].tolist(), 1, *[0] * (15 - words)]  # and the end of the text


@pytest.mark.filterwarnings("ignore")
def test_meta_clip_2_equals_transformers(tmp_path):
    from transformers import MetaClip2Config, MetaClip2Model, PreTrainedTokenizerFast

    torch.manual_seed(0)
    shape = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80)
    text = {**shape, "vocab_size": 300, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 3}
    config = MetaClip2Config(
        text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 8}, projection_dim=24
    )
    model = MetaClip2Model(config).eval()
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path, {"unk": "<unk>", "end": "</s>"}, 300, start="<s>")
    backbone = msta.load_backbone(tmp_path)
    frames = torch.randn(2, 3, 32, 32)
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    expected = theirs(TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
    ids = backbone.tokenize(TEXTS)
    assert torch.equal(ids, expected)
    with torch.no_grad():
        assert relative(backbone.encode_video(frames[:, None]), model.get_image_features(frames).pooler_output) < 1e-5
        assert relative(backbone.encode_text(ids), model.get_text_features(ids).pooler_output) < 1e-5


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.nested_given])
@given(
    act=st.sampled_from(["quick_gelu", "gelu", "gelu_pytorch_tanh", "relu"]),
    heads=st.sampled_from([2, 3, 6]),
    eps=st.sampled_from([1e-5, 1e-2]),
    where=st.sampled_from(["vision_config", "vision_config_dict"]),
)
def test_whatever_a_hugging_face_config_says_is_followed_or_refused(tmp_path_factory, act, heads, eps, where):
    from test_checkpoints import hugging_face
    from transformers import CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    hugging_face(folder)
    config = json.loads((folder / "config.json").read_text())
    said = {"hidden_act": act, "num_attention_heads": heads, "layer_norm_eps": eps}
    config[where] = {**(config["vision_config"]), **said}
    if where == "vision_config_dict":
        config["vision_config"] = {}
    (folder / "config.json").write_text(json.dumps(config))
    if act == "relu":
        with pytest.raises(CheckpointError, match="relu"):
            msta.load_backbone(folder)
        return
    frames = torch.randn(2, 3, 32, 32)
    theirs = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs.get_image_features(frames).pooler_output
    assert relative(msta.load_backbone(folder).encode_video(frames[:, None]), expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_pixel_statistics_of_both_transformers(tmp_path, file):
    from test_checkpoints import hugging_face

    hugging_face(tmp_path)
    pixels = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    written = {"image_processor": pixels} if file.startswith("processor") else pixels
    (tmp_path / file).write_text(json.dumps(written))
    backbone = msta.load_backbone(tmp_path)
    assert backbone.pixel_mean.tolist() == [0.5] * 3
    assert file in backbone.origins["mean"]


# ---------------------------------------------------------------- files without a config


def native(width=768, layers=12, patch=32, size=224, text=512, text_layers=12, embed=512):
    """The tensors of a model of these sizes, all of them one number in memory."""
    state = {"positional_embedding": (77, text), "text_projection": (text, embed), "token_embedding.weight": (49408, text),
             "ln_final.weight": (text,), "ln_final.bias": (text,), "visual.class_embedding": (width,),
             "visual.positional_embedding": ((size // patch) ** 2 + 1, width), "visual.proj": (width, embed),
             "visual.conv1.weight": (width, 3, patch, patch), "logit_scale": ()}  # fmt: skip
    state |= {f"visual.{n}.{w}": (width,) for n in ("ln_pre", "ln_post") for w in ("weight", "bias")}
    for prefix, d, depth in (("visual.", width, layers), ("", text, text_layers)):
        for i in range(depth):
            block = f"{prefix}transformer.resblocks.{i}."
            state |= {f"{block}{n}.{w}": (d,) for n in ("ln_1", "ln_2") for w in ("weight", "bias")}
            for name, shape in (("attn.in_proj_", (3 * d, d)), ("attn.out_proj.", (d, d)), ("mlp.c_fc.", (4 * d, d)),
                                ("mlp.c_proj.", (d, 4 * d))):  # fmt: skip
                state |= {f"{block}{name}weight": shape, f"{block}{name}bias": shape[:1]}
    return {name: torch.zeros(()).expand(shape) for name, shape in state.items()}


SIZES = {
    "ViT-B/32": {},
    "ViT-B/16": {"patch": 16},
    "ViT-L/14": {"width": 1024, "layers": 24, "patch": 14, "text": 768, "embed": 768},
    "ViT-H/14": {"width": 1280, "layers": 32, "patch": 14, "text": 1024, "text_layers": 24, "embed": 1024},
    "ViT-g/14": {"width": 1408, "layers": 40, "patch": 14, "text": 1024, "text_layers": 24, "embed": 1024},
    "ViT-bigG/14": {"width": 1664, "layers": 48, "patch": 14, "text": 1280, "text_layers": 32, "embed": 1280},
}


def described(path: str, model: str, **said: str):
    """The facts that the loader finds for a file of this name and these sizes: nothing is read."""
    from msta.backbone.formats.parts import Facts, strip
    from msta.backbone.formats.resblocks import load

    facts = Facts(path, said)
    return load(strip(native(**SIZES[model]), facts), Path(path), facts, None, None)


@pytest.mark.parametrize(
    ("path", "model", "said", "activation", "heads", "mean"),
    [
        ("ViT-B-32.pt", "ViT-B/32", {}, "quick_gelu", 12, CLIP_MEAN),
        ("vit_b32-laion2b_s34b_b79k.pt", "ViT-B/32", {}, "gelu", 12, CLIP_MEAN),
        ("vit_b_32-quickgelu-laion400m_e31.pt", "ViT-B/32", {}, "quick_gelu", 12, CLIP_MEAN),
        ("vit_b_16-laion400m_e32.pt", "ViT-B/16", {}, "gelu", 12, CLIP_MEAN),
        ("weights.pt", "ViT-B/16", {"activation": "gelu"}, "gelu", 12, CLIP_MEAN),
        ("weights.pt", "ViT-B/16", {"activation": "quick_gelu"}, "quick_gelu", 12, CLIP_MEAN),
        ("CLIP-ViT-L-14-laion2B-s32B-b82K/model.bin", "ViT-L/14", {}, "gelu", 16, (0.5, 0.5, 0.5)),
        ("CLIP-ViT-L-14-DataComp.XL-s13B-b90K/model.bin", "ViT-L/14", {}, "gelu", 16, CLIP_MEAN),
        ("weights.pt", "ViT-L/14", {"activation": "gelu", "mean": "0.5", "std": "0.5"}, "gelu", 16, (0.5, 0.5, 0.5)),
        ("DFN5B-CLIP-ViT-H-14/model.bin", "ViT-H/14", {}, "quick_gelu", 16, CLIP_MEAN),
        ("laion2b.bin", "ViT-H/14", {}, "gelu", 16, CLIP_MEAN),
        ("weights.bin", "ViT-g/14", {}, "gelu", 16, CLIP_MEAN),
        ("h14_v1.2_altogether_metaclip.pt", "ViT-bigG/14", {}, "quick_gelu", 16, CLIP_MEAN),
    ],
)
def test_known_models_are_told_by_sizes_and_name(path, model, said, activation, heads, mean):
    made = described(path, model, **said)
    assert (made.architecture.video.activation, made.architecture.text.activation) == (activation, activation)
    assert made.architecture.video.heads == heads
    assert made.architecture.text.heads == made.architecture.text.width // 64
    assert made.architecture.pixel_mean == mean
    assert made.origins["video activation"].startswith(activation)


@pytest.mark.parametrize("model", ["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-H/14", "ViT-bigG/14"])
def test_two_known_models_of_the_same_sizes_are_asked_about(model):
    with pytest.raises(
        CheckpointError, match=r"quick_gelu\).*LAION.*\?activation=quick_gelu.*\?activation=gelu"
    ) as error:
        described("model.pt", model)
    assert "\n" not in str(error.value)


def test_open_clips_file_without_its_config_is_asked_about(tmp_path):
    file = shutil.copy(OPEN_CLIP / "quick-gelu" / "open_clip_model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json .*\?activation=gelu"):
        msta.load_backbone(file)
    backbone = msta.load_backbone(f"{file}?activation=quick_gelu&heads=3&text_heads=4")
    check(backbone, "quick-gelu")


def test_unknown_sizes_without_a_word_are_said(caplog):
    file = DATA / "open_clip" / "quick-gelu" / "open_clip_model.safetensors"
    from msta.backbone.formats.parts import Facts
    from msta.backbone.formats.resblocks import load

    load(load_file(file), Path("weights.pt"), Facts("weights.pt"), None, None)
    assert "?activation=gelu" in caplog.text


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("activation=relu", "none of quick_gelu"), ("heads=many", "heads"), ("head=2", "no ?head="), ("mean=1,2", "mean"),
        ("heads=5", "sizes make no model"), ("tokenizer=nowhere.json", "nowhere.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_named(said, message):
    with pytest.raises(CheckpointError) as error:
        msta.load_backbone(f"{DATA / 'openai_clip_tiny.pt'}?{said}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_said_stays_with_an_adapter(tmp_path):
    named = f"{OPEN_CLIP / 'siglip'}?heads=3"
    model = msta.attach(msta.load_backbone(named), msta.MSTAConfig(dim=16))
    model.save(tmp_path / "adapter")
    assert msta.load_adapter(tmp_path / "adapter").origin["source"] == named


@pytest.mark.parametrize(
    ("config", "tensors", "named"),
    [
        ({"model_type": "siglip2"}, None, "NaFlex"), ({"model_type": "xclip"}, None, "X-CLIP"),
        ({"model_type": "chinese_clip"}, None, "Chinese CLIP"), ({"model_type": "altclip"}, None, "AltCLIP"),
        ({"model_type": "videoprism"}, None, "VideoPrism"), (None, "visual.blocks.0.attn.inner_attn_ln.weight", "EVA-CLIP"),
        (None, "vision_encoder.blocks.0.ls1.gamma", "InternVideo2"), (None, "image_encoder.model.patch_embed.0.weight", "MobileCLIP"),
    ],
)  # fmt: skip
def test_models_that_are_not_supported_are_called_by_their_names(tmp_path, config, tensors, named):
    save_file({tensors or "x": torch.zeros(1)}, tmp_path / "model.safetensors")
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"{named}.*nearest") as error:
        msta.load_backbone(tmp_path)
    assert "missing" not in str(error.value)


def test_open_vclip_is_refused_by_name(tmp_path):
    shutil.copy(DATA / "openai_clip_tiny.pt", tmp_path / "swa_2_22.pth")
    with pytest.raises(CheckpointError, match="Open-VCLIP"):
        msta.load_backbone(tmp_path / "swa_2_22.pth")


def test_viclip_folders_as_the_hub_lays_them_out(tmp_path):
    state = torch.load(DATA / "viclip_tiny.pth", weights_only=True)
    save_file({k: v.contiguous().clone() for k, v in state.get("model", state).items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViCLIP"], "auto_map": {}}))
    io = load_file(DATA / "viclip_tiny_io.safetensors")
    backbone = msta.load_backbone(tmp_path)
    expected = msta.load_backbone(DATA / "viclip_tiny.pth")
    video = next(value for value in io.values() if value.ndim == 5)
    assert torch.equal(backbone.encode_video(video), expected.encode_video(video))
    assert backbone.fingerprint() == expected.fingerprint()


def test_a_folder_with_several_files_of_weights_asks_which(tmp_path):
    for name in ("a.pth", "b.pth"):
        shutil.copy(DATA / "viclip_tiny.pth", tmp_path / name)
    with pytest.raises(CheckpointError, match=r"name one: a\.pth, b\.pth"):
        msta.load_backbone(tmp_path)


# ---------------------------------------------------------------- texts


def test_texts_become_the_ids_of_clips_own_tokenizer():
    ids = msta.random_backbone("clip-b32").tokenize(TEXTS)
    expected = load_file(OPEN_CLIP / "clip_ids.safetensors")["ids"].long()
    different = [text for text, ours, theirs in zip(TEXTS, ids, expected, strict=True) if not torch.equal(ours, theirs)]
    assert different == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("clean", ["whitespace", "canonicalize"])
def test_tokenizers_of_hugging_face_are_used_as_open_clip_uses_them(tmp_path, clean):
    """CLIPA's is BERT's, with zeros in the place of its [SEP]; the steps are those of HFTokenizer in open_clip 3.3."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    folder = shutil.copytree(OPEN_CLIP / "clipa", tmp_path / "clipa")
    config = json.loads((folder / "open_clip_config.json").read_text())
    kwargs = {"strip_sep_token": True} if clean == "whitespace" else {"clean": clean}
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": kwargs}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"bert-base-uncased, whose tokenizer\.json is not in the folder"):
        msta.load_backbone(folder)
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer, bert.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    bert.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special))
    bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    bert.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", sep_token="[SEP]"
    )
    cleaned = [html.unescape(html.unescape(ftfy.fix_text(text))).strip() for text in TEXTS]
    if clean == "canonicalize":
        table = str.maketrans("", "", string.punctuation)
        cleaned = [text.replace("_", " ").translate(table).lower() for text in cleaned]
    cleaned = [" ".join(text.split()) for text in cleaned]
    ids = theirs(cleaned, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
    if clean == "whitespace":
        ids = torch.where(ids == theirs.sep_token_id, 0, ids)
    assert torch.equal(msta.load_backbone(folder).tokenize(TEXTS), ids)


def test_a_vocabulary_without_its_tokenizer_is_refused(tmp_path):
    state = load_file(OPEN_CLIP / "quick-gelu" / "open_clip_model.safetensors")
    state["token_embedding.weight"] = torch.zeros(32000, 32)
    save_file(state, tmp_path / "openai.safetensors")
    with pytest.raises(CheckpointError, match=r"vocabulary of 32000 .*\?tokenizer="):
        msta.load_backbone(tmp_path / "openai.safetensors")
    write_tokenizer(tmp_path, {"unk": "<unk>", "end": "</s>"}, 300)
    backbone = msta.load_backbone(f"{tmp_path / 'openai.safetensors'}?tokenizer={tmp_path / 'tokenizer.json'}")
    assert backbone.tokenizer.rules.end == 1
