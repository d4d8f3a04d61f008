"""Text to token ids: one small interface for CLIP's own BPE and Hugging Face's tokenizer files.

A text is cleaned as the model's own tokenizer does, encoded, put between a start and an end token (if the model has
them) and padded to the context length of the tower.
"""

from __future__ import annotations

import functools
import html
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ftfy
import torch
from tokenizers import Regex as HFRegex
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from msta.errors import CheckpointError
from msta.files import read_json
from msta.notices import notice

CLIP_VOCAB_SIZE = 49408
_TRAINED_VOCABULARY = 8192
"""Vocabularies of this size or more belong to trained models; smaller ones to models made for tests."""

Clean = Literal["none", "clip", "whitespace", "lower", "canonicalize", "siglip"]


@dataclass(frozen=True)
class TextRules:
    """What surrounds the ids of a text. ``start`` and ``end`` are ids, or None without such a token; ``pad`` fills up.

    ``clean``, before encoding:

        none          nothing
        clip          OpenAI's: ftfy, HTML entities, white space, lower case
        whitespace    open_clip's default for other tokenizers: the same, without lower case
        lower         lower case alone (SigLIP 2 in transformers)
        canonicalize  open_clip's for SigLIP: as clip, "_" to a space, and no punctuation
        siglip        transformers' for SigLIP: lower case, no punctuation, white space
    """

    start: int | None
    end: int | None
    pad: int = 0
    clean: Clean = "none"


class Tokenizer:
    """Turns texts into padded ids.

    Args:
        encode: one cleaned text -> its ids, without start and end.
        rules: what is done before and after.
        source: "clip", "folded", "unknown", or the content of the tokenizer file as JSON, which
            :meth:`DualEncoder.save` writes.
    """

    def __init__(self, encode: Callable[[str], list[int]], rules: TextRules, source: str) -> None:
        self._encode = encode
        self.rules = rules
        self.source = source

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """K texts -> int64 [K, context_length], padded. A longer text loses its last words, but never its end token.

        Raises:
            TypeError: a single string instead of a list.
        """
        if isinstance(texts, str):
            raise TypeError("tokenize takes a list of texts, got one string")
        ids = torch.full((len(texts), context_length), self.rules.pad, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            tokens = self._bracketed(text)
            if len(tokens) > context_length:
                notice(f"A text is longer than the backbone's {context_length} tokens and is cut: {text!r}")
                end = tokens[-1:] if self.rules.end is not None else []
                tokens = tokens[: context_length - len(end)] + end
            row[: len(tokens)] = torch.tensor(tokens)
        return ids

    def length(self, text: str) -> int:
        """The number of tokens in a text of any length, with start and end."""
        return len(self._bracketed(text))

    def _bracketed(self, text: str) -> list[int]:
        start, end = ([] if token is None else [token] for token in (self.rules.start, self.rules.end))
        return [*start, *self._encode(_cleaned(text, self.rules.clean)), *end]


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _cleaned(text: str, how: Clean) -> str:
    if how in ("clip", "whitespace", "canonicalize"):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.replace("_", " ")
    if how in ("canonicalize", "siglip"):
        text = text.translate(_NO_PUNCTUATION)
    if how in ("clip", "lower", "canonicalize", "siglip"):
        text = text.lower()
    return text if how in ("none", "lower") else " ".join(text.split())


@functools.cache
def _clip_encode() -> Callable[[str], list[int]]:
    """CLIP's BPE from the package instant-clip-tokenizer, or from the Hub if it has no wheel (Python >= 3.13)."""
    try:
        import instant_clip_tokenizer
    except ImportError:
        try:
            hub = HFTokenizer.from_pretrained("openai/clip-vit-base-patch32")
        except Exception as error:
            raise CheckpointError(
                "CLIP's tokenizer is neither installed (pip install instant-clip-tokenizer) nor reachable on the Hub: "
                f"{error}"
            ) from error
        return lambda text: hub.encode(text, add_special_tokens=False).ids
    encode: Callable[[str], list[int]] = instant_clip_tokenizer.Tokenizer().encode
    return encode


def clip_tokenizer(vocab_size: int = CLIP_VOCAB_SIZE) -> Tokenizer:
    """CLIP's BPE. The two special tokens are the last ones of the vocabulary.

    A model of another size has a vocabulary that we do not have. Ids are then folded into it; most distinct words stay
    distinct. That is enough for random weights and tiny test models, and means nothing to trained weights.
    """
    rules = TextRules(vocab_size - 2, vocab_size - 1, clean="clip")
    if vocab_size == CLIP_VOCAB_SIZE:
        return Tokenizer(_encode_clip, rules, "clip")
    return Tokenizer(functools.partial(_encode_folded, vocab_size), rules, "folded")


def tokenizer_without_file(vocab_size: int) -> Tokenizer:
    """For weights that come without a tokenizer: CLIP's tokenizer, if the vocabulary is CLIP's.

    Raises:
        CheckpointError: the vocabulary is another one, and large enough for a trained model.
    """
    if vocab_size != CLIP_VOCAB_SIZE and vocab_size >= _TRAINED_VOCABULARY:
        raise CheckpointError(
            f"its vocabulary of {vocab_size} tokens is not CLIP's ({CLIP_VOCAB_SIZE}), and no tokenizer.json is beside "
            "it; put the model's own there, or name it: ?tokenizer=FOLDER/tokenizer.json"
        )
    return clip_tokenizer(vocab_size)


# Functions with names, so that a model that holds one can be pickled for another process.


def _encode_clip(text: str) -> list[int]:
    return _clip_encode()(text)


def _encode_folded(vocab_size: int, text: str) -> list[int]:
    notice(
        f"This backbone has {vocab_size} tokens, not CLIP's {CLIP_VOCAB_SIZE}, and brings no tokenizer: "
        "CLIP's ids are folded into its vocabulary."
    )
    return [1 + i % (vocab_size - 3) for i in _clip_encode()(text)]


def _encode_hf(tokenizer: HFTokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def tokenizer_from_json(content: str, rules: TextRules | None = None) -> Tokenizer:
    """A Hugging Face ``tokenizer.json``. If ``rules`` is None, start and end have the names that CLIP gives them."""
    hf = HFTokenizer.from_str(content)
    if rules is None:
        start, end = hf.token_to_id("<|startoftext|>"), hf.token_to_id("<|endoftext|>")
        if start is None or end is None:
            raise CheckpointError("the tokenizer lacks <|startoftext|> or <|endoftext|>")
        rules = TextRules(start, end)
    return _with_rules(hf, rules)


def read_tokenizer(file: Path) -> HFTokenizer:
    """Parse a ``tokenizer.json``. A large vocabulary takes a second.

    Raises:
        CheckpointError: the file does not exist, or is damaged.
    """
    try:
        return HFTokenizer.from_str(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    except Exception as error:  # the library raises plain Exceptions
        raise CheckpointError(f"{file}: no tokenizer: {error}") from error


def foreign_tokenizer(
    file: Path, hf: HFTokenizer, clean: Clean, names: tuple[str | None, str | None, str]
) -> Tokenizer:
    """The tokenizer of a model that is not a CLIP.

    Args:
        file: its tokenizer.json. If there is a ``tokenizer_config.json`` beside it, it names the padding token.
        hf: the result of :func:`read_tokenizer`.
        clean: what the model's own tokenizer does to a text first.
        names: of the start, end and padding tokens. If the file itself adds a start and an end, they are used instead.

    Raises:
        CheckpointError: it pads on the left, or lacks those tokens.
    """
    start, end, pad = names
    beside: dict[str, Any] = {}
    if (config := file.with_name("tokenizer_config.json")).is_file():
        beside = read_json(config, CheckpointError)
        if beside.get("padding_side") == "left":
            raise CheckpointError(f"{config}: padding on the left is not supported")
        named = beside.get("pad_token")
        pad = (named.get("content") if isinstance(named, dict) else named) or pad
    ids = [None if name is None else hf.token_to_id(name) for name in (start, end, pad)]
    if (added := _added_tokens(hf)) is not None:
        ids[:2] = added
    elif missing := [name for name, found in zip((start, end), ids, strict=False) if name and found is None]:
        raise CheckpointError(f"{file}: the tokenizer lacks {', '.join(missing)}")
    return _with_rules(hf, TextRules(ids[0], ids[1], ids[2] or 0, clean))


def _with_rules(hf: HFTokenizer, rules: TextRules) -> Tokenizer:
    hf.no_padding()
    hf.no_truncation()
    return Tokenizer(functools.partial(_encode_hf, hf), rules, hf.to_str())


def _added_tokens(hf: HFTokenizer) -> tuple[int | None, int | None] | None:
    """The start and end tokens that the file itself puts around a text; None if it adds none."""
    whole = hf.encode("a")
    special = [i for i, is_special in zip(whole.ids, whole.special_tokens_mask, strict=True) if is_special]
    if not special:
        return None
    start = whole.ids[0] if whole.special_tokens_mask[0] else None
    return start, whole.ids[-1] if whole.special_tokens_mask[-1] else None


def tokenizer_from_directory(directory: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a Hugging Face CLIP directory: ``tokenizer.json``, else ``vocab.json`` and ``merges.txt``.

    Raises:
        CheckpointError: there is neither, and the vocabulary is not CLIP's.
    """
    if (directory / "tokenizer.json").is_file():
        return tokenizer_from_json((directory / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    if not (vocab.is_file() and merges.is_file()):
        return tokenizer_without_file(vocab_size)
    special = {"end_of_word_suffix": "</w>", "continuing_subword_prefix": "", "unk_token": "<|endoftext|>"}
    hf = HFTokenizer(models.BPE.from_file(str(vocab), str(merges), **special))
    hf.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(HFRegex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's own pattern
    hf.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(HFRegex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer_from_json(hf.to_str())
