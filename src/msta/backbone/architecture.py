"""Architectures as data: the numbers that define a dual encoder, and the five that have names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from msta.backbone.blocks import TowerShape
from msta.backbone.video import VideoAttention

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build a :class:`~msta.backbone.dual_encoder.DualEncoder` but the weights.

    ``frames`` is what the backbone was trained with: the stored temporal positions under joint attention, the
    default number of frames to sample under frame-wise attention. ``eos_token_id``: see ``TextTower``. ``fit``: how it
    was shown frames that are no squares: CLIP cropped, ViCLIP (its code is VINDLU's) squashed.
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
    fit: Literal["crop", "squash"] = "crop"

    def __post_init__(self) -> None:
        if self.attention not in ("joint", "frame-wise"):
            raise ValueError(f"attention {self.attention!r} is neither joint nor frame-wise")
        for name in ("image_size", "patch_size", "frames", "embed_dim", "vocab_size", "context_length"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a positive whole number, got {getattr(self, name)!r}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image size {self.image_size} is no multiple of the patch size {self.patch_size}")
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise ValueError("pixel statistics are three numbers each, for red, green and blue")
        if self.fit not in ("crop", "squash"):
            raise ValueError(f"fit {self.fit!r} is neither crop nor squash")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """The inverse of :meth:`to_dict`, also after a trip through JSON.

        Raises:
            TypeError: an unknown or missing field.
        """
        data = dict(data)
        for name in ("video", "text"):
            data[name] = TowerShape(**data[name])
        for name in ("pixel_mean", "pixel_std"):
            data[name] = tuple(data[name])
        return cls(**data)


def _shape(width: int, layers: int) -> TowerShape:
    """CLIP's proportions: heads of 64, an MLP four times as wide."""
    return TowerShape(width, layers, heads=width // 64, mlp_width=4 * width)


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
}
