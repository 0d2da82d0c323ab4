"""Street scenes drawn by NumPy: a labelled dataset that needs no download.

A scene is a street seen in perspective by a camera at height 1 (the unit of all lengths): a road with pavements, house
fronts and fences along both sides, and vehicles, pedestrians and poles on the ground between them. The size of a thing
on the picture follows from the row it stands on.

Context is needed to tell classes apart. Within one scene
- house fronts, fences and the boxes of trucks have one material (colour, joints, dark panes);
- road and pavement have the same gray, and painted lines look as kerbs do;
- poles, drainpipes on house fronts and the legs of pedestrians are dark upright strips of one colour;
- the windows of far cars are as dark, and far cars as small, as the panes of houses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from nas_seg import common
from nas_seg.datasets import pictures
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.datasets.source import Pair, Source
from nas_seg.datasets.synthetic_figures import (
    BUILDING,
    FENCE,
    FIGURES,
    PAVEMENT,
    ROAD,
    SKY,
    STRIP,
    Figure,
    material_code,
    material_colors,
    shade,
    share,
)
from nas_seg.datasets.synthetic_figures import PEDESTRIAN as PEDESTRIAN
from nas_seg.datasets.synthetic_figures import POLE as POLE
from nas_seg.datasets.synthetic_figures import VEHICLE as VEHICLE

VOID = 255

# name, colour in pictures of labels
CLASSES = (
    ("Sky", (70, 130, 180)),
    ("Building", (128, 64, 0)),
    ("Fence", (240, 170, 60)),
    ("Road", (128, 64, 128)),
    ("Pavement", (244, 35, 232)),
    ("Pole", (220, 220, 0)),
    ("Vehicle", (0, 0, 200)),
    ("Pedestrian", (220, 20, 60)),
)

DESCRIPTOR = DatasetDescriptor(
    name="synthetic",
    num_classes=len(CLASSES),
    class_names=tuple(name for name, _ in CLASSES),
    colors=tuple(color for _, color in CLASSES),
    ignore_label=VOID,
    splits={},
)

_FAR = 45.0
_HOUSES = 14


@dataclasses.dataclass
class _Scene:
    """A picture being drawn and the street it shows.

    Attributes:
        rng: what everything is drawn from.
        image: float32 [H, W, 3], 0..255.
        label: uint8 [H, W].
        horizon: row of the vanishing point.
        vanish: its column.
        focal: focal length in pixels.
        material: colour [3] that walls, fences and trucks share.
        half_road: half of the road's width.
        pavements: width of the pavement on the left and on the right; 0 where the wall stands at the road.
    """

    rng: np.random.Generator
    image: np.ndarray
    label: np.ndarray
    horizon: float
    vanish: float
    focal: float
    material: np.ndarray
    half_road: float
    pavements: tuple[float, float]

    @property
    def sides(self) -> list[tuple[int, float]]:
        """(-1, pavement on the left), (1, pavement on the right)."""
        return list(zip((-1, 1), self.pavements, strict=True))


def draw_scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street.

    Args:
        rng: everything is drawn from it; equal states give equal scenes.
        height: rows of the picture.
        width: columns.

    Returns:
        uint8 RGB [height, width, 3] and uint8 classes [height, width]; VOID on a rim around some things.
    """
    scene = _Scene(
        rng=rng,
        image=np.zeros((height, width, 3), np.float32),
        label=np.zeros((height, width), np.uint8),
        horizon=height * rng.uniform(0.34, 0.5),
        vanish=width * rng.uniform(0.3, 0.7),
        focal=width * rng.uniform(0.65, 0.95),
        material=shade(rng, rng.uniform(70, 190), 20),
        half_road=rng.uniform(1.7, 3.0),
        pavements=tuple(0.0 if rng.random() < 0.15 else rng.uniform(1.2, 3.2) for _ in range(2)),
    )
    _draw_sky(scene)
    _draw_skyline(scene)
    for side, pavement in scene.sides:
        _draw_walls(scene, side, scene.half_road + pavement)
    _draw_ground(scene)
    for side, pavement in scene.sides:
        if rng.random() < 0.85:
            _draw_fence(scene, side, scene.half_road + pavement * rng.uniform(0.7, 0.97))
    _draw_things(scene)
    return _expose(scene), scene.label


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Noise of mean 0 and deviation about 1 that varies over a `cells`-th of the picture; float32 [height, width]."""
    grid = rng.standard_normal((cells + 1, cells + 1), np.float32)
    for _ in range(2):
        place = np.linspace(0, cells, height, dtype=np.float32)
        low = np.minimum(place.astype(int), cells - 1)
        grid = (grid[low] + (grid[low + 1] - grid[low]) * (place - low).astype(np.float32)[:, None]).T
        height = width
    return grid


def _draw_sky(scene: _Scene) -> None:
    rng, width, rows = scene.rng, scene.label.shape[1], int(scene.horizon) + 1
    # From a clear blue to an overcast as gray as a wall.
    overcast = rng.random()
    zenith = (1 - overcast) * np.array([90, 140, 215]) + overcast * np.array([165, 168, 172])
    haze = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    clouds = _smooth_noise(rng, rows, width, 6)[..., None] * 12
    scene.image[:rows] = zenith.astype(np.float32) * (1 - haze) + 205 * haze + clouds
    scene.label[:] = SKY


def _draw_skyline(scene: _Scene) -> None:
    """House blocks across the far end of the street."""
    rng, width = scene.rng, scene.label.shape[1]
    blocks = rng.uniform(0, 5, 24) * (rng.random(24) < 0.8) * scene.focal / _FAR
    bottom = int(scene.horizon) + 2
    mask = np.arange(bottom)[:, None] > scene.horizon - np.repeat(blocks, -(-width // 24))[:width]
    scene.image[:bottom][mask] = scene.material * 0.5 + 95
    scene.label[:bottom][mask] = BUILDING


def _upright_plane(scene: _Scene, side: int, distance: float) -> tuple[slice, np.ndarray, np.ndarray]:
    """An upright plane beside the camera: the columns that show it, depth [w] there and height above ground [H, w]."""
    height, width = scene.label.shape
    middle = int(np.ceil(scene.vanish))
    columns = slice(0, middle) if side < 0 else slice(middle, width)
    offset = np.abs(np.arange(width, dtype=np.float32)[columns] - scene.vanish) + 1e-3
    depth = (scene.focal * distance / offset).astype(np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(scene.horizon)
    return columns, depth, 1 - rows * (depth / np.float32(scene.focal))


def _draw_walls(scene: _Scene, side: int, distance: float) -> None:
    """House fronts along one side, each with its own height and shade, some gaps, drainpipes at their ends."""
    rng = scene.rng
    columns, depth, up = _upright_plane(scene, side, distance)
    ends = np.cumsum(rng.uniform(2.5, 8, _HOUSES)).astype(np.float32)
    tall = np.where(rng.random(_HOUSES) < 0.18, 0, rng.uniform(2.6, 8.5, _HOUSES)).astype(np.float32)
    bases = scene.material + rng.uniform(-14, 14, (_HOUSES, 3))
    pane = (rng.uniform(0.7, 1.5), rng.uniform(1.0, 1.6), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.65))
    house = np.minimum(np.searchsorted(ends, depth), _HOUSES - 1)
    row, column = np.nonzero((up >= 0) & (up < np.where(depth < _FAR, tall[house], 0)))
    code = material_code(depth[column], up[row, column], pane)
    color = material_colors(bases)[house[column], code]
    pipe = np.abs(ends[house] - depth - 0.06) < 0.06
    color[pipe[column]] = STRIP
    # Farther walls are hazier.
    haze = (np.minimum(depth / _FAR, 1) * 0.5).astype(np.float32)[column, None]
    scene.image[:, columns][row, column] = color + (190 - color) * haze
    scene.label[:, columns][row, column] = BUILDING


def _draw_fence(scene: _Scene, side: int, distance: float) -> None:
    """A low wall or fence of the houses' material, with panes of its own."""
    rng = scene.rng
    columns, depth, up = _upright_plane(scene, side, distance)
    start, length, tall = rng.uniform(1, 9), rng.uniform(8, 35), rng.uniform(0.6, 1.3)
    pane = (rng.uniform(0.5, 1.2), tall, rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.6))
    along = (depth > start) & (depth < min(start + length, _FAR))
    row, column = np.nonzero((up >= 0) & (up < tall) & along)
    code = material_code(depth[column], up[row, column], pane)
    scene.image[:, columns][row, column] = material_colors(shade(rng, scene.material))[code]
    scene.label[:, columns][row, column] = FENCE


def _draw_ground(scene: _Scene) -> None:
    """Road and pavements in one gray, with painted lines and kerbs that look the same."""
    rng, top, half = scene.rng, int(scene.horizon) + 1, scene.half_road
    image, label = scene.image[top:], scene.label[top:]
    height, width = label.shape
    below = np.arange(top, top + height, dtype=np.float32)[:, None] - np.float32(scene.horizon)
    depth = np.float32(scene.focal) / below
    lateral = (np.arange(width, dtype=np.float32) - np.float32(scene.vanish)) / below
    lines = np.abs(lateral - rng.uniform(-0.4, 0.4)) < 0.07
    lines &= share(depth * rng.uniform(0.3, 0.5)) < 0.55
    for side, pavement in scene.sides:
        if rng.random() < 0.6:
            lines |= np.abs(lateral - side * (half - rng.uniform(0.3, 0.9))) < 0.06
        if pavement:
            lines |= np.abs(lateral - side * half) < 0.06
    if rng.random() < 0.3:
        start = rng.uniform(4, 12)
        lines |= (depth > start) & (depth < start + 1.6) & (np.abs(lateral) < half) & (share(lateral * 1.4) < 0.5)
    gray = rng.uniform(75, 130) + 6 * _smooth_noise(rng, height, width, 12) + 55 * lines
    gray -= 14 * (rng.random((height, width), np.float32) < 0.08)
    # The ground ends at the foot of the walls, which were drawn first, and goes on through the gaps between them.
    mask = (lateral > -half - scene.pavements[0]) & (lateral < half + scene.pavements[1]) | (label == SKY)
    image[mask] = gray[mask][:, None]
    label[mask] = PAVEMENT
    label[mask & (np.abs(lateral) < half)] = ROAD


def _draw_things(scene: _Scene) -> None:
    """Vehicles on the road, poles at the kerbs, pedestrians anywhere, from far to near."""
    rng, half = scene.rng, scene.half_road
    things = []

    def depths(fewest: int, most: int, nearest: float) -> np.ndarray:
        # Even in 1/depth, so that every size on the picture is about as frequent.
        return 1 / rng.uniform(1.3 / _FAR, 1 / nearest, rng.integers(fewest, most + 1))

    for depth in depths(2, 5, 3.5):
        lateral = rng.uniform(0.3, 0.95) * half * rng.choice((-1, 1))
        things.append((depth, lateral, "truck" if rng.random() < 0.3 else "car"))
    for depth in depths(2, 8, 2.2):
        things.append((depth, rng.uniform(-half - scene.pavements[0], half + scene.pavements[1]), "pedestrian"))
    for side, pavement in scene.sides:
        for depth in depths(1, 4, 2.0):
            things.append((depth, side * (half + min(0.3, pavement)), "pole"))
    for depth, lateral, kind in sorted(things, reverse=True):
        _draw_thing(scene, depth, lateral, FIGURES[kind])


def _draw_thing(scene: _Scene, depth: float, lateral: float, figure: Figure) -> None:
    """Draws an upright flat figure standing on the ground; half of them get a rim of VOID."""
    rng, (height, width) = scene.rng, scene.label.shape
    scale = np.float32(scene.focal / depth)
    foot, middle = scene.horizon + scale, scene.vanish + lateral * scale
    top, bottom = max(int(foot - figure.tall * scale) - 1, 0), min(int(foot) + 2, height)
    left, right = max(int(middle - figure.reach * scale) - 2, 0), min(int(middle + figure.reach * scale) + 3, width)
    if top >= bottom or left >= right:
        return
    u = ((np.arange(left, right) - middle) / scale).astype(np.float32)[None, :]
    v = ((foot - np.arange(top, bottom)) / scale).astype(np.float32)[:, None]
    image, label = scene.image[top:bottom, left:right], scene.label[top:bottom, left:right]
    whole = np.zeros(label.shape, bool)
    for mask, color in figure.parts(rng, scene.material, u, v, 0.5 / float(scale)):
        image[mask] = color if color.ndim == 1 else color[mask]
        whole |= mask
    label[whole] = figure.index
    if rng.random() < 0.5:
        label[_grow(whole) & ~whole] = VOID


def _grow(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _expose(scene: _Scene) -> np.ndarray:
    """Light and camera: uneven light, a shadow across the street, a soft lens, noise; uint8."""
    rng, image, (height, width) = scene.rng, scene.image, scene.label.shape
    gain = rng.uniform(0.6, 1.2) * (1 + 0.12 * _smooth_noise(rng, height, width, 3))
    if rng.random() < 0.6:
        rows = np.maximum(np.arange(height, dtype=np.float32)[:, None] - np.float32(scene.horizon), 0)
        place = np.arange(width, dtype=np.float32) - np.float32(scene.vanish) + rng.uniform(-1.5, 1.5) * rows
        begin, wide = rng.uniform(-0.5, 0.4) * width, rng.uniform(0.15, 0.5) * width
        shadow = (place > begin) & (place < begin + wide) & (rows > 0)
        gain[shadow] *= rng.uniform(0.5, 0.75)
    image *= gain[..., None]
    image *= rng.uniform(0.92, 1.08, 3).astype(np.float32)
    _blur(image)
    _blur(image.transpose(1, 0, 2))
    # Uniform noise of deviation 5..14: it costs a fifth of normal noise.
    noise = rng.random(image.shape, np.float32)
    noise -= 0.5
    noise *= np.float32(rng.uniform(5, 14) * 12**0.5)
    image += noise
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _blur(image: np.ndarray) -> None:
    """Mixes each row with its neighbours 1 : 2 : 1, in place; beyond the border the last row goes on."""
    quarter = image * 0.25
    image *= 0.5
    image[1:] += quarter[:-1]
    image[:-1] += quarter[1:]
    image[0] += quarter[0]
    image[-1] += quarter[-1]


class _Scenes(Sequence):
    """The scenes of a split, drawn when they are asked for."""

    def __init__(self, split: str, number: int, count: int, size: tuple[int, int], seed: int):
        self._split, self._number, self._count, self._size, self._seed = split, number, count, size, seed
        # What the pairs depend on, see `source.identity`.
        self.identity = repr((split, number, count, size, seed))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self._count:
            raise IndexError(index)
        rng = np.random.default_rng([self._seed, self._number, index])
        image, label = draw_scene(rng, *self._size)
        return Pair(f"{self._split}_{index:05d}", pictures.encode_jpeg(image), pictures.encode_png(label))


def make_source(num_images: Sequence[int], size: tuple[int, int], seed: int) -> Source:
    """Scenes of the splits train, val and, where a third number is given, test.

    Args:
        num_images: pictures of each split.
        size: (height, width).
        seed: scene i of a split depends on (seed, split, i) alone.
    """
    names = (common.TRAIN_SPLIT, common.VAL_SPLIT, common.TEST_SPLIT)
    splits = {}
    for number, (name, count) in enumerate(zip(names, num_images, strict=False)):
        splits[name] = _Scenes(name, number, count, size, seed)
    return Source(DESCRIPTOR, splits)
