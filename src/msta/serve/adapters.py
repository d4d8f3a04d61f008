"""The adapters of a folder: loaded on first use, evicted when others need the memory."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from pathlib import Path

from msta.adapters.artefact import CONFIG, adapter_in
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import MSTAError
from msta.inference.predictor import Predictor
from msta.methods import load_adapter
from msta.serve.limits import Refusal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Adapters:
    """A least-recently-used cache of adapters.

    A request keeps the adapter that it was given, so an eviction does not disturb a computation.

    Args:
        backbone: frozen, to load the adapters onto.
        folder: has one sub-folder per adapter, or per run of ``msta train``, whose adapter it then is. Sub-folders may
            come and go while the service runs.
        memory: bytes that all loaded adapters may take together. The last one used is always kept.
    """

    def __init__(self, backbone: DualEncoder, folder: Path, memory: int) -> None:
        self.backbone, self.folder, self.memory = backbone, folder.resolve(), memory
        self._loaded: OrderedDict[str, tuple[Predictor, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}
        self.evictions = 0

    def names(self) -> list[str]:
        """All adapters, loaded or not."""
        return sorted(path.name for path in self.folder.iterdir() if self._place(path.name) is not None)

    def loaded(self, name: str) -> tuple[Predictor, int] | None:
        """A loaded adapter and its bytes, or None. This does not count as use."""
        return self._loaded.get(name)

    def loaded_bytes(self) -> int:
        """The memory that loaded adapters take."""
        return sum(size for _, size in self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)

    async def get(self, name: str) -> Predictor:
        """The adapter with this name. It is loaded if necessary.

        Raises Refusal if there is no such adapter (404), or it cannot be loaded onto this backbone (409).
        """
        if name not in self._loaded:
            if self._place(name) is None:
                raise Refusal(404, f"adapter: no {name[:100]!r}; GET /v1/adapters lists them")
            async with self._loading.setdefault(name, asyncio.Lock()):
                if name not in self._loaded:
                    self._loaded[name] = await self._load(name)
            self._evict()
        self._loaded.move_to_end(name)
        return self._loaded[name][0]

    def unload(self, name: str) -> bool:
        """Unload an adapter. Returns whether it was loaded."""
        return self._loaded.pop(name, None) is not None

    async def _load(self, name: str) -> tuple[Predictor, int]:
        try:
            place = self._place(name) or self.folder / name
            adapter = await asyncio.to_thread(lambda: Predictor(load_adapter(place, self.backbone)))
        except MSTAError as error:
            reason = str(error).replace(f"{self.folder}/", "")  # callers need not know the folder
            raise Refusal(409, f"adapter: {reason}") from None
        return adapter, adapter.own_bytes(self.backbone)

    def _evict(self) -> None:
        while self.loaded_bytes() > self.memory and len(self._loaded) > 1:
            self._loaded.popitem(last=False)
            self.evictions += 1

    def _place(self, name: str) -> Path | None:
        """Where the adapter is; None if there is none of that name inside the folder."""
        if not _NAME.fullmatch(name):
            return None
        place = adapter_in(self.folder / name)
        return place if place.resolve().is_relative_to(self.folder) and (place / CONFIG).is_file() else None
