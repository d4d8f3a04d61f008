"""Ask a language model for the sentences of each class, through any endpoint with OpenAI's protocol.

Every usable sentence is written to the bank as soon as it arrives. If a run ends early for any reason, the same command
continues it and asks only for what is missing. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msta.descriptions.answers import Unusable, choose, content_of, parse, read_body
from msta.descriptions.bank import KINDS, Described, DescriptionBank, Kind, today
from msta.descriptions.endpoint import (
    Endpoint,
    about_format,
    cause_of,
    code_of,
    import_openai,
    message_of,
    nobody_there,
    retry_after,
)
from msta.descriptions.prompts import SCHEMA, SYSTEM, VERSION, request
from msta.errors import Interrupted, MSTAError, in_short
from msta.notices import notice

_FORMATS: tuple[dict[str, Any] | None, ...] = (
    {"type": "json_schema", "json_schema": {"name": "descriptions", "strict": True, "schema": SCHEMA}},
    {"type": "json_object"},
    None,
)
"""Forms of structured output, the strictest first. If a server refuses one, the next is tried."""
_LONGEST_PAUSE = 60.0
_LONGEST_ORDERED_PAUSE = 900.0


@dataclass(frozen=True)
class Patience:
    """How often and how long to try.

    Attributes:
        answers: how often a class is asked about before it is reported as incomplete.
        failures: how often the server may fail a request (429, 5xx, lost or late answers) while no other succeeds.
        pause: seconds before the first retry; the pause doubles with every retry.
        timeout: seconds that an answer may take.
    """

    answers: int = 4
    failures: int = 8
    pause: float = 1.0
    timeout: float = 120.0


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        incomplete: class -> why it lacks sentences.
        requests: the number of answered ones.
        tokens_in: as the server counts them; None if it does not.
        tokens_out: as the server counts them; None if it does not.
    """

    incomplete: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None

    def cost(self) -> str:
        """The line about the cost."""
        if self.requests and self.tokens_in is None:
            return f"{self.requests:,} answers; the server does not say how many tokens"
        return f"{self.requests:,} answers, {self.tokens_in or 0:,} tokens in, {self.tokens_out or 0:,} tokens out"

    def count(self, body: dict[str, Any]) -> None:
        """Add the usage of an answer."""
        self.requests += 1
        usage = body.get("usage")
        if isinstance(usage, dict):
            each = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            sent, received = (n if isinstance(n, int) else 0 for n in each)
            self.tokens_in, self.tokens_out = (self.tokens_in or 0) + sent, (self.tokens_out or 0) + received


class _Fatal(Exception):
    """An error that every other class would meet too."""


class Asking:
    """A run that completes a bank. The first Ctrl-C waits for pending answers; a second one does not wait.

    Args:
        bank: the sentences so far.
        classes: the classes to complete.
        sentences: how many of each kind per class.
        to: the endpoint to ask.
        save: writes a bank; called after every usable answer.
        jobs: how many classes are asked about at a time.
        patience: how often and how long to try.
        progress: called with the number of classes that are done.

    Attributes:
        bank: with the sentences that have arrived.
        tally: what was done, even if the run fails.
    """

    def __init__(
        self, bank: DescriptionBank, classes: Sequence[str], sentences: int, to: Endpoint,
        save: Callable[[DescriptionBank], None], *, jobs: int, patience: Patience, progress: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.classes, self.sentences, self.to, self.save = classes, sentences, to, save
        self.bank = bank.with_places(classes)  # in the labels' order, whoever answers first
        self.jobs, self.patience, self.progress = jobs, patience, progress
        self.tally = Tally()
        self.format = 0
        self.not_before = 0.0  # the clock's time until which the server wants to be left alone
        self.heard = False  # whether the server ever answered a request
        self.stopping = False
        self.fatal: str | None = None
        self.done = 0

    # ------------------------------------------------------------ the run

    async def run(self) -> None:
        """Ask until each class has its sentences, or was asked about often enough.

        Raises:
            MSTAError: the server refuses the key, the model or the request, or does not exist.
            Interrupted: after Ctrl-C.
        """
        openai = import_openai()
        self.openai = openai
        waiting = [name for name in self.classes if any(self._lacking(name))]
        self.done = len(self.classes) - len(waiting)
        self.progress(self.done)
        queue = iter(waiting)
        async with openai.AsyncOpenAI(
            api_key=self.to.key or "none", base_url=self.to.url, timeout=self.patience.timeout, max_retries=0
        ) as self.client:
            workers = [asyncio.create_task(self._work(queue)) for _ in range(min(self.jobs, len(waiting)))]
            with self._interruptible(workers):
                try:
                    await asyncio.gather(*workers)
                except asyncio.CancelledError:
                    if not self.stopping:
                        raise
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
        if self.fatal is not None:
            raise MSTAError(self._scrub(self.fatal))
        if self.stopping:
            raise Interrupted(
                f"{self.bank.source}: stopped with {self.done} of {len(self.classes)} classes done; "
                "the same command goes on"
            )

    @contextlib.contextmanager
    def _interruptible(self, workers: Sequence[asyncio.Task[None]]) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def ask() -> None:
            if self.stopping:
                for worker in workers:
                    worker.cancel()
            else:
                notice("Stopping after the answers under way; Ctrl-C again drops them.")
            self.stopping = True

        try:
            loop.add_signal_handler(signal.SIGINT, ask)
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _work(self, queue: Iterator[str]) -> None:
        for name in queue:
            if self.stopping:
                return
            try:
                fault = await self._complete(name)
            except _Fatal as error:
                self.fatal, self.stopping = self.fatal or str(error), True  # the others take what is under way
                return
            if fault is not None:
                self.tally.incomplete[name] = self._scrub(fault)
            self.done += fault is None
            self.progress(self.done + len(self.tally.incomplete))

    async def _complete(self, name: str) -> str | None:
        """Ask about a class until it has its sentences. Returns the reason if it does not get them."""
        complaint: str | None = None
        complaints: Counter[str] = Counter()
        for _ in range(self.patience.answers):
            if not any(self._lacking(name)) or self.stopping:
                break
            try:
                body = await self._ask(self._messages(name, complaint))
                self.tally.count(body)
                complaint = self._keep(name, body)
            except Unusable as error:
                complaint = str(error)
            if complaint:
                complaints[complaint] += 1
        if not any(self._lacking(name)):
            return None
        often = [f"{text} ({count} times)" if count > 1 else text for text, count in complaints.most_common()]
        return "; ".join(often) or "stopped"

    def _lacking(self, name: str) -> tuple[int, int]:
        spatial, temporal = (max(0, self.sentences - len(self._there(name).of(kind))) for kind in KINDS)
        return spatial, temporal

    def _there(self, name: str) -> Described:
        return self.bank.find(name) or Described()

    def _messages(self, name: str, complaint: str | None) -> list[dict[str, str]]:
        there = self._there(name)
        asked = request(name, *self._lacking(name), (*there.spatial, *there.temporal), complaint)
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]

    def _keep(self, name: str, body: dict[str, Any]) -> str | None:
        """Put the usable sentences of an answer into the bank. Returns what is wrong with the others.

        Raises:
            Unusable: no sentence is usable.
        """
        found, there = parse(content_of(body), name), self._there(name)
        new: dict[Kind, list[str]] = {}
        wrong: list[str] = []
        for kind, wanted in zip(KINDS, self._lacking(name), strict=True):
            taken = [*there.spatial, *there.temporal, *itertools.chain(*new.values())]
            new[kind], faults = choose(found[kind], wanted, name, taken, self.classes, self.to.secret)
            wrong += faults if len(new[kind]) < wanted else []
        if any(new.values()):
            before = there.model or ("unknown" if there.spatial or there.temporal else None)
            models = " + ".join(dict.fromkeys([*(before.split(" + ") if before else []), self.to.model]))
            spatial, temporal = ((*there.of(kind), *new[kind]) for kind in KINDS)
            described = Described(spatial, temporal, models, VERSION, today(), there.edited)
            self.bank = self.bank.put(self.bank.called(name), described)
            self.save(self.bank)
        return wrong[0] if wrong else None

    # ------------------------------------------------------------ one request

    async def _ask(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """The body of an answer, after as many retries as ``patience`` allows.

        Raises:
            Unusable: this request was not answered properly.
            _Fatal: no request will be.
        """
        openai, failed, answered = self.openai, 0, self.tally.requests
        while True:
            await self._wait()
            used = self.format
            given = {"response_format": _FORMATS[used]} if _FORMATS[used] else {}
            try:
                response = await self.client.chat.completions.with_raw_response.create(
                    model=self.to.model, messages=messages, **given
                )
                self.heard = True
                return read_body(response.text)
            except openai.APITimeoutError:
                reason, ordered = f"no answer within {self.patience.timeout:g} s", None
            except openai.APIConnectionError as error:
                reason, ordered = f"the connection failed ({cause_of(error)})", None
                if not self.heard and nobody_there(error):
                    raise _Fatal(
                        f"{self.to.host}: no server answers there; is it running, and the port right?"
                    ) from None
            except openai.APIStatusError as error:
                self.heard = True
                if error.status_code in (400, 422) and used < len(_FORMATS) - 1 and about_format(error):
                    self.format = max(self.format, used + 1)
                    continue
                self._give_up_if(error)
                reason, ordered = f"error {error.status_code}", retry_after(error.response.headers)
            failed = failed + 1 if answered == self.tally.requests else 1
            answered = self.tally.requests
            if failed > self.patience.failures:
                raise _Fatal(
                    f"{self.to.host}: {reason}, {failed} times in a row; {self.done} of {len(self.classes)} classes "
                    "are done, and the same command goes on"
                )
            pause = min(_LONGEST_PAUSE, self.patience.pause * 2 ** (failed - 1)) * random.uniform(0.75, 1.25)
            if ordered is None:
                await self._sleep(pause)
            elif ordered > _LONGEST_ORDERED_PAUSE:
                raise _Fatal(f"{self.to.host}: asks to be left alone for {ordered / 60:.0f} minutes; try again then")
            else:
                self.not_before = max(self.not_before, time.monotonic() + ordered)

    async def _wait(self) -> None:
        while (left := self.not_before - time.monotonic()) > 0:
            await self._sleep(left)

    async def _sleep(self, seconds: float) -> None:
        """Wait; return early if the run stops."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.stopping:
            await asyncio.sleep(min(left, 0.2))
        if self.stopping:
            raise Unusable("stopped")

    def _give_up_if(self, error: Any) -> None:
        """Raise if the same request cannot succeed later."""
        status, code = error.status_code, code_of(error)
        said = f" ({in_short(Exception(self._scrub(message_of(error))))})"
        if status == 401:
            hint = (
                f"the key in {self.to.key_from} is refused" if self.to.key else f"wants a key: set {self.to.key_from}"
            )
            raise _Fatal(f"{self.to.host}: {hint}")
        if status == 403:
            raise _Fatal(f"{self.to.host}: the key in {self.to.key_from} may not use {self.to.model!r}{said}")
        if status == 404:
            raise _Fatal(f"{self.to.url}: there is no model {self.to.model!r}, or the URL is wrong{said}")
        if code in ("content_filter", "content_policy_violation"):
            raise Unusable("the server filtered it out")
        if code in ("insufficient_quota", "billing_hard_limit_reached"):
            raise _Fatal(f"{self.to.host}: the account's quota is used up")
        if status < 500 and status not in (408, 409, 425, 429):
            raise _Fatal(f"{self.to.host}: refuses the request, error {status}{said}")

    def _scrub(self, text: str) -> str:
        return text.replace(self.to.secret, "***") if self.to.secret else text
