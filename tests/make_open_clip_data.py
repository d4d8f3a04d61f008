"""Make tests/data/open_clip: tiny models with random weights by the real open_clip and timm, and what they answer.

Not run by the tests: open_clip needs torchvision, which the CPU build of torch lacks. Put open_clip_torch 3.3.0 and timm
1.0.31 into a folder (pip install --no-deps --target FOLDER), then: python tests/make_open_clip_data.py FOLDER
"""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "data" / "open_clip"
VISION = {"image_size": 32, "layers": 3, "width": 48, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 4, "layers": 2}
CONFIGS = {
    "gelu-wide-heads": {"vision_cfg": {**VISION, "head_width": 24, "mlp_ratio": 4.9231}, "text_cfg": TEXT},
    "quick-gelu": {"quick_gelu": True, "vision_cfg": {**VISION, "head_width": 16}, "text_cfg": TEXT},
    "clipa": {
        "vision_cfg": {**VISION, "head_width": 16, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, "pool_type": "last", "no_causal_mask": True},
    },
    "worldwide": {
        "quick_gelu": True,
        "vision_cfg": {**VISION, "head_width": 16},
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 2},
    },
    "siglip": {
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
                     "act_kwargs": {"approximate": "tanh"}},
    },
    "pe-core": {
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "vit_pe_core_base_patch16_224", "timm_pool": "map", "timm_proj": None},
        "text_cfg": TEXT,
    },
}  # fmt: skip
SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}  # of the towers from timm


def main(libraries: str) -> None:
    """Write every model's folder: open_clip_config.json, open_clip_model.safetensors, io.safetensors."""
    sys.path.insert(0, libraries)
    _without_torchvision()
    import open_clip
    import timm
    from open_clip import timm_model

    made_by_timm = timm.create_model
    timm_model.timm.create_model = partial(_small, made_by_timm)
    for number, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        model_cfg = {"embed_dim": 24, **config}
        if "timm_model_name" in config["vision_cfg"] and config["vision_cfg"]["timm_proj"] == "none":
            model_cfg["embed_dim"] = 48  # no projection: the tower's width
        kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        settings = {k: v for k, v in model_cfg.items() if k != "custom_text"}
        model = kind(**settings).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            model.logit_scale.fill_(3.0)
            ids = torch.randint(3, 500, (5, 16))
            ids[:, 9] = 511  # the highest, where argmax reads
            ids[:, 7] = 2  # where "eos" reads
            ids[:, 12:] = 0
            frames = torch.randn(3, 3, 32, 32)
            io = {"frames": frames, "ids": ids, "image": model.encode_image(frames), "text": model.encode_text(ids)}
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}}
        whole["preprocess_cfg"]["resize_mode"] = "squash"
        (folder / "open_clip_config.json").write_text(json.dumps(whole, indent=1) + "\n")
        state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
        save_file({key: value.contiguous() for key, value in io.items()}, folder / "io.safetensors")
    tokenizer = open_clip.SimpleTokenizer()
    texts = json.loads((OUT.parent / "texts.json").read_text(encoding="utf-8"))
    save_file({"ids": tokenizer(texts).to(torch.int32)}, OUT / "clip_ids.safetensors")


def _small(create_model: object, name: str, **settings: object) -> torch.nn.Module:
    pooling = {"attn_pool_num_heads": 8} if "pe_core" in name else {}
    rotary = {"ref_feat_shape": (4, 4)} if "pe_core" in name else {}
    settings = {k: v for k, v in settings.items() if k != "img_size"}
    return create_model(name, img_size=32, **{**settings, **SMALL, **pooling, **rotary})  # type: ignore[operator]


def _without_torchvision() -> None:
    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"BICUBIC": 3, "BILINEAR": 2, "NEAREST": 0, "BOX": 4, "HAMMING": 5, "LANCZOS": 1})

    import transformers.utils.import_utils as hub

    hub._torchvision_available = False
    names = ("", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional", ".ops", ".ops.misc",
             ".datasets", ".datasets.folder", ".models", ".models.feature_extraction", ".utils", ".io")  # fmt: skip
    for name in names:
        module = Anything(f"torchvision{name}")
        module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(f"torchvision{name}", None)
        sys.modules[f"torchvision{name}"] = module
        if name:
            parent, _, child = f"torchvision{name}".rpartition(".")
            setattr(sys.modules[parent], child, module)


if __name__ == "__main__":
    main(sys.argv[1])
