"""Answers of a language model: parsed strictly, then checked sentence by sentence.

An answer is data. No instruction in it is followed, and a sentence that is an instruction or a refusal is not kept.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from msta.descriptions.bank import KINDS, Kind, key, same_text
from msta.descriptions.prompts import MAX_WORDS
from msta.errors import is_text

_THOUGHTS = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(i(?:'|’)?m sorry|i am sorry|i apologi[sz]e|as an ai|language model|i can(?:'|’)?t|i cannot|i am unable|"
    r"i(?:'|’)?m unable|unable to (?:assist|comply|help)|i won(?:'|’)?t|can(?:'|’)?t (?:assist|help) with)\b",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"https?://|www\.|</?[a-z][^>]*>|```|\$\(|\{\{|<\||\|>|^(?:system|assistant|user|human)\s*:|"
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules|above|previous)\b|"
    r"\b(?:system prompt|api key|password)\b",
    re.IGNORECASE,
)
_SMALL = {"a", "an", "the", "of", "to", "in", "on", "with", "and", "or", "something", "someone", "from", "into", "for"}


class Unusable(Exception):
    """An answer that cannot be used. The message says why, in our own words."""


def read_body(text: str) -> dict[str, Any]:
    """The JSON object that a server sent.

    Raises:
        Unusable: the server sent something else.
    """
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unusable("the server sent no valid JSON")
    return body


def content_of(body: dict[str, Any]) -> Any:
    """The text of the answer in a chat completion.

    Raises:
        Unusable: there is no text, or it was cut off.
    """
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise Unusable("the server sent no answer")
    if message.get("refusal"):
        raise Unusable("it was a refusal")
    if first.get("finish_reason") == "content_filter":
        raise Unusable("the server filtered it out")
    if first.get("finish_reason") == "length":
        raise Unusable("it was cut off at the server's limit")
    return message.get("content")


def parse(content: Any, name: str) -> dict[Kind, list[str]]:
    """The text of an answer -> unchecked sentences of each kind.

    The text must be one JSON object: alone, in one code fence, or after the thoughts that some local models print.

    Raises:
        Unusable: the text is empty, a refusal, or anything else.
    """
    if not isinstance(content, str) or not content.strip():
        raise Unusable("it was empty")
    text = _THOUGHTS.sub("", content).strip()
    if fenced := _FENCED.match(text):
        text = fenced[1]
    try:
        found = json.loads(text)
    except ValueError:
        if _REFUSAL.search(text) and not _mentions(text, name):
            raise Unusable("it was a refusal") from None
        raise Unusable("it was no JSON object alone") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(kind), list) for kind in KINDS):
        raise Unusable('it was no JSON object with the lists "spatial" and "temporal"')
    return {kind: found[kind] for kind in KINDS}


def choose(
    sentences: Iterable[Any], wanted: int, name: str, taken: Iterable[str], others: Sequence[str], secret: str = ""
) -> tuple[list[str], list[str]]:
    """The first ``wanted`` sentences that can be kept, and what is wrong with the others.

    Args:
        sentences: as the model wrote them.
        wanted: how many are needed.
        name: their class.
        taken: sentences that the class has already.
        others: all class names.
        secret: text that no sentence may contain.
    """
    seen = {same_text(sentence) for sentence in taken}
    kept: list[str] = []
    wrong: list[str] = []
    for sentence in sentences:
        if len(kept) == wanted:
            break
        fault = fault_of(sentence, name, others, secret)
        if fault is None and same_text(sentence) in seen:
            fault = "a sentence was there twice"
        if fault is not None:
            wrong.append(fault)
            continue
        tidy = " ".join(sentence.split())
        seen.add(same_text(tidy))
        kept.append(tidy)
    if len(kept) < wanted and not wrong:
        wrong.append("there were too few sentences")
    return kept, wrong


def fault_of(sentence: Any, name: str, others: Sequence[str] = (), secret: str = "") -> str | None:
    """Why a sentence cannot be kept, in our own words; None if it can."""
    if not isinstance(sentence, str):
        return "a sentence was no text"
    if not sentence.strip() or not any(c.isalnum() for c in sentence):
        return "a sentence was empty"
    if not is_text(sentence) or any(unicodedata.category(c) in ("Cc", "Cf") and not c.isspace() for c in sentence):
        return "a sentence held control characters"
    if len(sentence.split()) > MAX_WORDS or len(sentence) > 8 * MAX_WORDS:
        return f"a sentence was longer than {MAX_WORDS} words"
    if secret and secret in sentence:
        return "a sentence held a secret"
    if _REFUSAL.search(sentence) and not _mentions(sentence, name):
        return "a sentence was a refusal"
    if _INSTRUCTION.search(sentence):
        return "a sentence was markup, a link or an instruction"
    if _is_latin(name) and not _is_latin(sentence):
        return "a sentence was not in English"
    if leaked := _leak(sentence, name, others):
        return f"a sentence named another action, {leaked!r}"
    return None


def _mentions(text: str, name: str) -> bool:
    """Whether a word of the class name is in the text, in any inflection."""
    said = key(text).split()
    telling = [w for w in key(name).split() if w not in _SMALL] or key(name).split()
    return any(word.startswith(w[: max(3, len(w) - 3)]) for w in telling for word in said)


def _leak(sentence: str, name: str, others: Sequence[str]) -> str | None:
    """Another class that the sentence names with two words or more. Single words ("run") describe other actions too."""
    said, own = f" {key(sentence)} ", f" {key(name)} "
    for other in others:
        phrase = f" {key(other)} "
        if phrase in said and " " in phrase.strip() and phrase not in own:
            return other
    return None


def _is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin: the text towers know no others."""
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(unicodedata.name(c, "").startswith("LATIN") for c in letters) >= len(letters)
