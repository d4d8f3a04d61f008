"""The adapters of a folder: loaded when asked for, evicted when others need the memory."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from pathlib import Path

from msta.adapters.artefact import CONFIG
from msta.errors import MSTAError
from msta.inference.shared import Member, SharedBackbone
from msta.serve.limits import Refusal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Adapters:
    """A least-recently-used cache of members.

    A request holds on to the member it was given: eviction makes no difference to what is being computed.

    Args:
        shared: the backbone they are loaded onto.
        folder: a sub-folder an adapter; sub-folders that come or go while the service runs are seen.
        memory: bytes all of them may take together. The one asked for last is always kept.
    """

    def __init__(self, shared: SharedBackbone, folder: Path, memory: int) -> None:
        self.shared, self.folder, self.memory = shared, folder.resolve(), memory
        self._loaded: OrderedDict[str, tuple[Member, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}
        self.evictions = 0

    def names(self) -> list[str]:
        """All there are, loaded or not."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{CONFIG}") if self._usable(path.parent.name))

    def loaded(self, name: str) -> tuple[Member, int] | None:
        """A loaded one and its bytes, without counting as use."""
        return self._loaded.get(name)

    def loaded_bytes(self) -> int:
        """Memory they take."""
        return sum(size for _, size in self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)

    async def get(self, name: str) -> Member:
        """The adapter of that name, loaded if need be.

        Raises:
            Refusal: no such adapter (404), or it cannot be loaded onto this backbone (409).
        """
        if name not in self._loaded:
            if not self._usable(name):
                raise Refusal(404, f"adapter: no {name[:100]!r}; GET /v1/adapters lists them")
            async with self._loading.setdefault(name, asyncio.Lock()):
                if name not in self._loaded:
                    self._loaded[name] = await self._load(name)
            self._evict()
        self._loaded.move_to_end(name)
        return self._loaded[name][0]

    def unload(self, name: str) -> bool:
        """Forget a loaded one; whether it was."""
        return self._loaded.pop(name, None) is not None

    async def _load(self, name: str) -> tuple[Member, int]:
        try:
            member = await asyncio.to_thread(self.shared.load, self.folder / name)
        except MSTAError as error:
            reason = str(error).replace(f"{self.folder}/", "")  # the caller need not know where they are kept
            raise Refusal(409, f"adapter: {reason}") from None
        return member, member.own_bytes(self.shared.backbone)

    def _evict(self) -> None:
        while self.loaded_bytes() > self.memory and len(self._loaded) > 1:
            self._loaded.popitem(last=False)
            self.evictions += 1

    def _usable(self, name: str) -> bool:
        if not _NAME.fullmatch(name):
            return False
        inside = (self.folder / name).resolve().is_relative_to(self.folder)
        return inside and (self.folder / name / CONFIG).is_file()
