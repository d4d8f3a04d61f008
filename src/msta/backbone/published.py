"""Short names for the trained weights on the Hugging Face Hub that most people start from.

Repositories, licences and the sizes of ViCLIP's files are from their pages. Other sizes are the parameters times four
bytes. The arithmetic is counted on the architecture with random weights, for one clip of 8 frames of 224 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from json import JSONDecodeError

from msta.errors import in_short


@dataclass(frozen=True)
class Published:
    """A repository with weights.

    Attributes:
        hub: its id, or that of a file in it.
        megabytes: of the weights, 10^6 bytes.
        gflop: to encode a clip, 10^9 operations.
        licence: as the page states it.
        advice: what it is good for.
    """

    hub: str
    megabytes: int
    gflop: int
    licence: str
    advice: str


_VICLIP = "not on its page; OpenGVLab/ViCLIP says MIT"
PUBLISHED = {
    "viclip-b16": Published("OpenGVLab/ViCLIP-B-16-hf", 598, 329, _VICLIP, "the first choice: it knows motion"),
    "viclip-l14": Published("OpenGVLab/ViCLIP-L-14-hf", 1710, 1584, _VICLIP, "the same, large"),
    "viclip-l14-flt": Published(
        "OpenGVLab/ViCLIP/ViClip-InternVid-10M-FLT.pth", 1710, 1584, "MIT", "viclip-l14 as the authors' own file"
    ),
    "clip-b32": Published(
        "openai/clip-vit-base-patch32", 605, 65, "MIT", "the cheapest, for a CPU; knows single frames"
    ),
    "clip-b16": Published("openai/clip-vit-base-patch16", 598, 258, "MIT", "single frames, finer patches"),
    "clip-l14": Published("openai/clip-vit-large-patch14", 1710, 1243, "MIT", "single frames, large"),
    "datacomp-b16": Published("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", 598, 258, "MIT", "clip-b16 on newer data"),
    "siglip2-b16": Published(
        "google/siglip2-base-patch16-224", 1500, 280, "Apache 2.0", "single frames; class names in many languages"
    ),
    "pe-core-b16": Published("timm/PE-Core-B-16", 1791, 281, "Apache 2.0", "single frames; a large text tower"),
}
"""Short name -> repository; ``load_backbone`` takes the names."""


def hub_reason(error: Exception) -> str:
    """Why the Hub gives nothing, and what to do: its client's advice is to check the connection, whatever the cause."""
    from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError, OfflineModeIsEnabled

    cause = (isinstance(error, LocalEntryNotFoundError) and error.__cause__) or error
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if status == 429 or status >= 500:
        return f"it answers with the error {status}; try again later"
    if isinstance(cause, (JSONDecodeError, FileMetadataError)):
        return "the answer is not the Hub's; log in to the network, if it has a page for that, or check HF_ENDPOINT"
    if cause is error or status or isinstance(cause, OfflineModeIsEnabled):
        return in_short(cause)
    return f"no connection ({in_short(cause)}); check the network, its proxy and HF_ENDPOINT"
