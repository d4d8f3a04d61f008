"""Models that people have and that are not supported. The refusal names the model, what it needs, and the nearest."""

from __future__ import annotations

from collections.abc import Iterable

_MODEL_TYPES = {  # config.json's model_type -> name, what is missing, the nearest that loads
    "siglip2": ("SigLIP 2 NaFlex", "pictures of any size and shape, as lists of patches", "a SigLIP 2 of fixed size"),
    "xclip": ("X-CLIP", "attention between frames' messages and prompts made from the video", "ViCLIP"),
    "chinese_clip": ("Chinese CLIP", "a BERT as text tower", "Meta CLIP 2, which reads Chinese"),
    "altclip": ("AltCLIP", "an XLM-R as text tower", "Meta CLIP 2, which reads many languages"),
    "align": ("ALIGN", "an EfficientNet and a BERT", "SigLIP"),
    "blip": ("BLIP", "a text tower that also looks at pictures", "SigLIP"),
    "blip-2": ("BLIP-2", "a language model behind the picture", "SigLIP"),
    "flava": ("FLAVA", "a tower over both", "SigLIP"),
    "clipseg": ("CLIPSeg", "a segmentation decoder", "the CLIP it was made from"),
    "vision-text-dual-encoder": ("a dual encoder of any two towers", "the towers it was put together from", "SigLIP"),
    "videoprism": ("VideoPrism", "blocks that attend within frames and over time in turn", "ViCLIP"),
    "pe_audio_video": ("PE-AV", "a tower for sound", "PE-Core, as open_clip's folder (timm/PE-Core-B-16)"),
    "pe_video": ("PE-AV's video tower", "a text tower", "PE-Core, as open_clip's folder (timm/PE-Core-B-16)"),
    "internvideo2": ("InternVideo2", "its video tower and a BERT or LLaMA as text tower", "ViCLIP, by the same group"),
    "eva_clip": ("EVA-CLIP", "rotary positions of its own, SwiGLU and inner layer norms", "PE-Core or SigLIP"),
    "mobileclip": ("MobileCLIP", "its convolutions", "open_clip's ViT-B/32"),
}
_KEYS = (  # a part of a tensor's name -> key above
    ("visual.trunk.blocks.0.attn.q_norm", "eva_clip"),
    ("visual.blocks.0.attn.q_bias", "eva_clip"),
    ("visual.blocks.0.attn.inner_attn_ln", "eva_clip"),
    ("image_encoder.model.patch_embed.", "mobileclip"),
    ("visual.trunk.stem.", "mobileclip"),
    ("vision_encoder.blocks.0.ls1", "internvideo2"),
    ("vision_encoder.blocks.0.attn.q_norm", "internvideo2"),
    ("text_model.encoder.layer.0.attention.self.query", "chinese_clip"),
    ("text_model.roberta.", "altclip"),
    ("mit.resblocks.0.", "xclip"),
    ("mit.positional_embedding", "xclip"),
)


def refusal(model_type: str | None, names: Iterable[str] = ()) -> str | None:
    """Why this model is not supported, in one sentence; None if it is not one of those known here."""
    known = _MODEL_TYPES.get(model_type or "")
    if known is None:
        every = "\n".join(names)
        known = next((_MODEL_TYPES[key] for part, key in _KEYS if part in every), None)
    if (model_type or "").endswith(("_vision_model", "_text_model")):
        return "this is one tower of a model, and both are needed; give the whole model"
    if known is None:
        return None
    name, missing, nearest = known
    return f"this is {name}, which is not supported: it needs {missing}; the nearest that loads is {nearest}"
