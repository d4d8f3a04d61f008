"""Architectures as data: the numbers that define a dual encoder, and the architectures that have names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from msta.backbone.blocks import TowerShape

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
"""Mean and std of SigLIP and the Perception Encoder: pixels from -1 to 1."""

VideoAttention = Literal["joint", "frame-wise"]
Fit = Literal["crop", "squash"]


@dataclass(frozen=True)
class Architecture:
    """Everything that a :class:`~msta.backbone.dual_encoder.DualEncoder` is built from, except its weights.

    A new model needs other values here and a table of tensor names in :mod:`msta.backbone.formats`, but no other code.
    The defaults are CLIP's. From ``class_token`` on:

        class_token       a class token before the patches
        patch_bias        a bias in the patch embedding
        ln_pre            a layer norm before the first block
        rotary            rows and columns also rotate queries and keys (rotary positions), as in the Perception Encoder
        pooling           what represents a frame after the last block: its class token; the mean of its patches, then
                          the layer norm (CLIPA); the layer norm, then a query that attends to all tokens (SigLIP, PE)
        pool_heads        heads of the attention pooling; 0: as many as the tower has
        video_projection  into the shared space: a matrix, a matrix and a bias (linear), none
        causal            a token of a text attends to itself and those before it; otherwise to all
        text_pooling      what represents a text: its end-of-text token, or the last position, padding or not
        text_projection   as video_projection
        logit_bias        the model was trained with a sigmoid per pair and has a bias for it (SigLIP)

    ``frames`` is the number in pretraining: the stored temporal positions with joint attention, the default number of
    frames with frame-wise attention. ``eos_token_id``: see ``TextTower``. ``fit``: how frames became squares in
    pretraining: CLIP cropped them, ViCLIP (its code is VINDLU's) squashed them.
    """

    attention: VideoAttention
    image_size: int
    patch_size: int
    frames: int
    embed_dim: int
    video: TowerShape
    text: TowerShape
    vocab_size: int = 49408
    context_length: int = 77
    eos_token_id: int | None = None
    pixel_mean: tuple[float, float, float] = CLIP_MEAN
    pixel_std: tuple[float, float, float] = CLIP_STD
    fit: Fit = "crop"
    class_token: bool = True
    patch_bias: bool = False
    ln_pre: bool = True
    rotary: bool = False
    pooling: Literal["class", "mean", "attention"] = "class"
    pool_heads: int = 0
    video_projection: Literal["matrix", "linear", "none"] = "matrix"
    causal: bool = True
    text_pooling: Literal["end", "last"] = "end"
    text_projection: Literal["matrix", "linear"] = "matrix"
    logit_bias: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Architecture).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(get_args(hint))}")
        for name in ("image_size", "patch_size", "frames", "embed_dim", "vocab_size", "context_length"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a positive whole number, got {getattr(self, name)!r}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image size {self.image_size} is no multiple of the patch size {self.patch_size}")
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise ValueError("pixel statistics are three numbers each, for red, green and blue")
        if self.video_projection == "none" and self.embed_dim != self.video.width:
            raise ValueError(f"without projection the embedding is as wide as the tower, {self.video.width}")
        if self.attention == "joint" and (self.pooling != "class" or self.rotary):
            raise ValueError("joint attention needs a class token that is read, and no rotary positions")
        if self.pooling == "class" and not self.class_token:
            raise ValueError("there is no class token to read; the pooling is mean or attention")
        if self.rotary and not self.class_token:
            raise ValueError("rotary positions are known for towers with a class token only")

    def unusual(self) -> dict[str, Any]:
        """The fields from ``class_token`` on that differ from CLIP: name -> value."""
        later = fields(self)[[field.name for field in fields(self)].index("class_token") :]
        return {f.name: getattr(self, f.name) for f in later if getattr(self, f.name) != f.default}

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """The inverse of :meth:`to_dict`, also for data that was read from JSON.

        Raises:
            TypeError: a field is unknown or missing.
        """
        data = dict(data)
        for name in ("video", "text"):
            data[name] = TowerShape(**data[name])
        for name in ("pixel_mean", "pixel_std"):
            data[name] = tuple(data[name])
        return cls(**data)


SIGLIP: dict[str, Any] = {
    "pixel_mean": HALF, "pixel_std": HALF, "fit": "squash", "class_token": False, "patch_bias": True, "ln_pre": False,
    "pooling": "attention", "video_projection": "none", "causal": False, "text_pooling": "last",
    "text_projection": "linear", "logit_bias": True,
}  # fmt: skip
"""SigLIP and SigLIP 2 (Zhai et al., ICCV 2023; Tschannen et al. 2025): the fields that differ from CLIP."""
PERCEPTION_ENCODER: dict[str, Any] = {
    "pixel_mean": HALF, "pixel_std": HALF, "fit": "squash", "rotary": True, "pooling": "attention", "pool_heads": 8,
}  # fmt: skip
"""Perception Encoder, PE-Core (Bolya et al. 2025): the fields that differ from CLIP."""


def _shape(width: int, layers: int, **other: Any) -> TowerShape:
    """A tower with CLIP's proportions: heads of 64 channels, an MLP four times as wide as the tower."""
    return TowerShape(width, layers, heads=width // 64, mlp_width=4 * width, **other)


def _clip(patch: int, embed_dim: int, video: TowerShape, text: TowerShape) -> Architecture:
    return Architecture("frame-wise", 224, patch, 8, embed_dim, video, text)


def _viclip(patch: int, embed_dim: int, video: TowerShape, text: TowerShape) -> Architecture:
    return Architecture(
        "joint", 224, patch, 8, embed_dim, video, text,
        context_length=32, pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD, fit="squash",
    )  # fmt: skip


ARCHITECTURES: dict[str, Architecture] = {
    "viclip-b16": _viclip(16, 512, _shape(768, 12), _shape(512, 12)),
    "viclip-l14": _viclip(14, 768, _shape(1024, 24), _shape(768, 12)),
    "clip-b32": _clip(32, 512, _shape(768, 12), _shape(512, 12)),
    "clip-b16": _clip(16, 512, _shape(768, 12), _shape(512, 12)),
    "clip-l14": _clip(14, 768, _shape(1024, 24), _shape(768, 12)),
    "siglip-b16": Architecture(
        "frame-wise", 224, 16, 8, 768, vocab_size=32000, context_length=64, **SIGLIP,
        video=_shape(768, 12, activation="gelu_tanh", layer_norm_eps=1e-6),
        text=_shape(768, 12, activation="gelu_tanh", layer_norm_eps=1e-6),
    ),
    "pe-core-b16": Architecture(
        "frame-wise", 224, 16, 8, 1024, context_length=32, **PERCEPTION_ENCODER,
        video=_shape(768, 12, activation="gelu"), text=_shape(1024, 24, activation="gelu"),
    ),
}  # fmt: skip
