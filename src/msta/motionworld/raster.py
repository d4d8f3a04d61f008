"""Shapes -> pixels: signed distances to capsules and convex polygons, painted back to front.

One clip is drawn at a time, all of its frames at once, each shape only inside its bounding box: the arrays of a
64 px clip then stay in the processor's cache, which on one core is faster than whole batches, and a clip cannot
depend on its neighbours. Coordinates and radii are in frames: (0, 0) is the top left corner, (1, 1) the bottom right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Vectors = NDArray[np.float64]
Numbers = NDArray[np.float64]

Bounds = tuple[float, float, float, float]
"""Left, top, right, bottom in frames."""

NOBODY, MAIN, OTHER = 0, 1, 2
"""Whose layer it is: of no interest, of the main thing, of the second one."""


def f32(values: object) -> Array:
    """Anything array-like as float32."""
    return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True)
class Capsule:
    """A line from ``start`` to ``end`` [T, 2] with round ends of two radii [T]. A disc if both ends are one point."""

    start: Array
    end: Array
    start_radius: Array
    end_radius: Array

    def bounds(self) -> Bounds:
        """What contains it in every frame."""
        radius = max(float(self.start_radius.max()), float(self.end_radius.max()))
        left, top = np.minimum(self.start, self.end).min(0).tolist()
        right, bottom = np.maximum(self.start, self.end).max(0).tolist()
        return left - radius, top - radius, right + radius, bottom + radius

    def moved(self, zoom: Array, shift: Array) -> Capsule:
        """As :func:`move`."""
        return Capsule(
            move(self.start, zoom, shift), move(self.end, zoom, shift), self.start_radius * zoom, self.end_radius * zoom
        )

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance [T, h, w] on the pixel columns x [w] and rows y [h]; negative inside."""
        along = self.end - self.start
        square = np.maximum((along**2).sum(1), 1e-8)
        from_x = x[None, None, :] - self.start[:, None, None, 0]  # [T, 1, w]
        from_y = y[None, :, None] - self.start[:, None, None, 1]  # [T, h, 1]
        dx, dy = along[:, None, None, 0], along[:, None, None, 1]
        share = from_x * (dx / square[:, None, None]) + from_y * (dy / square[:, None, None])
        np.clip(share, 0, 1, out=share)
        off_x = from_x - share * dx
        off_y = from_y - share * dy
        np.multiply(off_x, off_x, out=off_x)
        np.multiply(off_y, off_y, out=off_y)
        off_x += off_y
        np.sqrt(off_x, out=off_x)
        share *= (self.end_radius - self.start_radius)[:, None, None]
        share += self.start_radius[:, None, None]
        off_x -= share
        return off_x


def limb(start: Array | Vectors, end: Array | Vectors, start_radius: float, end_radius: float) -> Capsule:
    """A capsule from ``start`` to ``end`` [T, 2], with the same radii in every frame."""
    one = np.ones(len(start), np.float32)
    return Capsule(f32(start), f32(end), one * np.float32(start_radius), one * np.float32(end_radius))


@dataclass(frozen=True)
class Polygon:
    """A convex polygon: ``corners`` [T, K, 2]. Outside a corner the distance is too small, so corners stay sharp."""

    corners: Array

    def bounds(self) -> Bounds:
        """As :meth:`Capsule.bounds`."""
        (left, top), (right, bottom) = self.corners.min((0, 1)).tolist(), self.corners.max((0, 1)).tolist()
        return left, top, right, bottom

    def moved(self, zoom: Array, shift: Array) -> Polygon:
        """As :func:`move`."""
        return Polygon(move(self.corners, zoom[:, None], shift[:, None]))

    def distance(self, x: Array, y: Array) -> Array:
        """As :meth:`Capsule.distance`."""
        following = np.roll(self.corners, -1, 1)
        edge = following - self.corners
        area = (self.corners[..., 0] * following[..., 1] - self.corners[..., 1] * following[..., 0]).sum(1)
        sign = np.where(area < 0, -1, 1)[:, None]
        normal = np.stack([edge[..., 1], -edge[..., 0]], -1) * sign[..., None]
        normal = f32(normal / np.maximum(np.linalg.norm(edge, axis=-1, keepdims=True), 1e-6))
        reach = (normal * self.corners).sum(-1)
        result: Array | None = None
        for k in range(self.corners.shape[1]):
            side = normal[:, k, 0, None, None] * x[None, None, :] - reach[:, k, None, None]
            plane = side + normal[:, k, 1, None, None] * y[None, :, None]
            result = plane if result is None else np.maximum(result, plane, out=result)
        assert result is not None
        return result


Part = Capsule | Polygon


@dataclass(frozen=True)
class Texture:
    """A pattern in the thing's own coordinates, so that it moves and turns with it.

    Attributes:
        kind: stripes, checks, dots, or (held out) rings, waves.
        colour: of the pattern's second half, 0..1 [3].
        period: in frames.
        centre: of the thing, [T, 2].
        angle: of the thing in radians, [T].
    """

    kind: str
    colour: Array
    period: float
    centre: Array
    angle: Array

    def moved(self, zoom: Array, shift: Array) -> Texture:
        """As :func:`move`; the period stays, camera zooms are small."""
        return replace(self, centre=move(self.centre, zoom, shift))

    def share(self, x: Array, y: Array) -> Array:
        """How much of the second colour a pixel has, 0..1 [T, h, w]."""
        cos, sin = np.cos(self.angle)[:, None, None], np.sin(self.angle)[:, None, None]
        from_x = x[None, None, :] - self.centre[:, None, None, 0]
        from_y = y[None, :, None] - self.centre[:, None, None, 1]
        turn = np.float32(2 * np.pi / self.period)
        u = (from_x * cos + from_y * sin) * turn
        if self.kind == "stripes":
            wave = np.sin(u)
        else:
            v = (from_y * cos - from_x * sin) * turn
            if self.kind == "checks":
                wave = np.sin(u) * np.sin(v) * 2
            elif self.kind == "dots":
                wave = np.cos(u) * np.cos(v) * 3 - 1.2
            elif self.kind == "rings":
                wave = np.sin(np.sqrt(u * u + v * v))
            else:
                wave = np.sin(u + np.sin(v) * 1.5)
        return np.clip(wave * 2 + np.float32(0.5), 0, 1)


@dataclass(frozen=True)
class Layer:
    """The union of parts in one colour.

    Attributes:
        parts: at least one.
        colour: 0..1, [3].
        holes: cut out of the union.
        hollow: half the width of the outline, if only that is drawn; 0 fills.
        texture: a second colour.
        opacity: 0..1, [T].
        blur: width of the soft edge in frames, [T]: what speed or defocus adds to the pixel's own.
        shade: 0..1, how much darker the rim is than the middle.
        owner: NOBODY, MAIN or OTHER.
    """

    parts: Sequence[Part]
    colour: Array
    holes: Sequence[Part] = ()
    hollow: float = 0.0
    texture: Texture | None = None
    opacity: Array | None = None
    blur: Array | None = None
    shade: float = 0.0
    owner: int = NOBODY

    def moved(self, zoom: Array, shift: Array) -> Layer:
        """As :func:`move`."""
        return replace(
            self,
            parts=[part.moved(zoom, shift) for part in self.parts],
            holes=[part.moved(zoom, shift) for part in self.holes],
            texture=self.texture and self.texture.moved(zoom, shift),
        )


def move(points: Array, zoom: Array, shift: Array) -> Array:
    """What a camera does to points [..., 2]: zoom about the centre of the frame, then shift [..., 2]."""
    return f32((points - 0.5) * zoom[..., None] + 0.5 + shift)


@dataclass
class Canvas:
    """Frames being painted: ``pixels`` [3, T, H, W] in 0..1 and, per owner, how much of each pixel is its own."""

    pixels: Array
    coverage: dict[int, Array] = field(default_factory=dict)

    def paint(self, layer: Layer) -> None:
        """Put a layer on top of what is there."""
        _, count, size, _ = self.pixels.shape
        soft = np.full(count, 1 / size, np.float32) if layer.blur is None else f32(1 / size + layer.blur)
        margin = float(soft.max()) + layer.hollow
        bounds = [_bounds(part, margin) for part in layer.parts]
        box = _box(bounds, size)
        if box is None:
            return
        x, y = _centres(box[1], size), _centres(box[0], size)
        distance = self._union(layer.parts, bounds, box)
        if layer.hollow:
            np.abs(distance, out=distance)
            distance -= np.float32(layer.hollow)
        for part in layer.holes:
            np.maximum(distance, -part.distance(x, y), out=distance)
        alpha = distance * f32(-1 / soft)[:, None, None]
        alpha += np.float32(0.5)
        np.clip(alpha, 0, 1, out=alpha)
        if layer.opacity is not None:
            alpha *= layer.opacity[:, None, None]
        self._blend(layer, box, x, y, alpha, distance)

    def _union(self, parts: Sequence[Part], bounds: Sequence[Bounds], box: Box) -> Array:
        """Smallest distance to any part, each evaluated only where it can matter."""
        size = self.pixels.shape[2]
        if len(parts) == 1:
            return parts[0].distance(_centres(box[1], size), _centres(box[0], size))
        rows, columns = box
        shape = (self.pixels.shape[1], rows[1] - rows[0], columns[1] - columns[0])
        distance = np.full(shape, 1.0, np.float32)
        for part, around in zip(parts, bounds, strict=True):
            own = _box([around], size)
            if own is None:
                continue
            inside = (
                slice(None),
                slice(own[0][0] - rows[0], own[0][1] - rows[0]),
                slice(own[1][0] - columns[0], own[1][1] - columns[0]),
            )
            here = part.distance(_centres(own[1], size), _centres(own[0], size))
            np.minimum(distance[inside], here, out=distance[inside])
        return distance

    def _blend(self, layer: Layer, box: Box, x: Array, y: Array, alpha: Array, distance: Array) -> None:
        rows, columns = slice(*box[0]), slice(*box[1])
        second = None if layer.texture is None else layer.texture.share(x, y)
        dark: Array | None = None
        if layer.shade:
            # 1 where the surface faces the viewer, falling to 1 - shade at the rim, over the first 0.05 frames
            dark = np.clip(distance * np.float32(-layer.shade / 0.05) + np.float32(1 - layer.shade), 0, 1)
        for channel in range(3):
            target = self.pixels[channel, :, rows, columns]
            colour: Array | np.float32 = layer.colour[channel]
            if second is not None and layer.texture is not None:
                colour = second * (layer.texture.colour[channel] - layer.colour[channel]) + layer.colour[channel]
            if dark is not None:
                colour = colour * dark
            change = colour - target
            change *= alpha
            target += change
        if layer.owner:
            covered = self.coverage.get(layer.owner)
            if covered is None:
                covered = self.coverage[layer.owner] = np.zeros(self.pixels.shape[1:], np.float32)
            np.maximum(covered[:, rows, columns], alpha, out=covered[:, rows, columns])


Box = tuple[tuple[int, int], tuple[int, int]]
"""Rows from..to, columns from..to."""


def _bounds(part: Part, margin: float) -> Bounds:
    left, top, right, bottom = part.bounds()
    return left - margin, top - margin, right + margin, bottom + margin


def _box(bounds: Sequence[Bounds], size: int) -> Box | None:
    """The pixels inside any of the bounds; None if there are none."""
    left, top = min(b[0] for b in bounds), min(b[1] for b in bounds)
    right, bottom = max(b[2] for b in bounds), max(b[3] for b in bounds)
    rows = max(0, int(top * size)), min(size, int(bottom * size) + 1)
    columns = max(0, int(left * size)), min(size, int(right * size) + 1)
    return (rows, columns) if rows[0] < rows[1] and columns[0] < columns[1] else None


def _centres(span: tuple[int, int], size: int) -> Array:
    return f32((np.arange(*span) + 0.5) / size)
