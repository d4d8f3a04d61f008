"""The adapters of a folder: loaded on first use, evicted when others need the memory."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from pathlib import Path

from msta.adapters.artefact import CONFIG, adapter_in, written_at
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import MSTAError
from msta.inference.predictor import Predictor
from msta.methods import load_adapter
from msta.serve.limits import Refusal

_NAME = re.compile(r"[^./\\][^/\\]{0,99}")
"""Names of folders that adapters may have: any but hidden ones."""


class Adapters:
    """A least-recently-used cache of adapters.

    A request keeps the adapter that it was given, so an eviction does not disturb a computation.

    Args:
        backbone: frozen, to load the adapters onto.
        folder: has one sub-folder per adapter, or per run of ``msta train``, whose adapter it then is. Sub-folders may
            come, go and change while the service runs.
        memory: bytes that all loaded adapters may take together. The last one used is always kept.
    """

    def __init__(self, backbone: DualEncoder, folder: Path, memory: int) -> None:
        self.backbone, self.folder, self.memory = backbone, folder.resolve(), memory
        self._loaded: OrderedDict[str, tuple[Predictor, int]] = OrderedDict()
        self._written: dict[str, int] = {}  # when the weights of a loaded adapter were written
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
        place = self._place(name)
        written = None if place is None else written_at(place)
        if written is not None and written != self._written.get(name):  # another adapter has taken its place
            self.unload(name)
        if name not in self._loaded:
            if place is None:
                raise Refusal(404, f"adapter: no {name[:100]!r}; GET /v1/adapters lists them")
            async with self._loading.setdefault(name, asyncio.Lock()):
                if name not in self._loaded:
                    self._loaded[name] = await self._load(place)
                    if written is not None:
                        self._written[name] = written
            self._evict()
        self._loaded.move_to_end(name)
        return self._loaded[name][0]

    def unload(self, name: str) -> bool:
        """Unload an adapter. Returns whether it was loaded."""
        return self._loaded.pop(name, None) is not None

    async def _load(self, place: Path) -> tuple[Predictor, int]:
        try:
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
        if not _NAME.fullmatch(name) or not name.isprintable():
            return None
        place = adapter_in(self.folder / name)
        return place if place.resolve().is_relative_to(self.folder) and (place / CONFIG).is_file() else None
