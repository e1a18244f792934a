# Copyright 2026 The hybrid_depth_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Surface colours of the solids of the synthetic street, one function per material."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hybrid_depth.drives.texture import band, cells, fractal, hash01, noise


@dataclass(frozen=True)
class Surface:
    """Points on solids of one material."""

    p: np.ndarray  # (n, 3) in the solid's own frame, metres
    world: np.ndarray  # (n, 3)
    face: np.ndarray  # (n,) as in solids
    colour: np.ndarray  # (n, 3) main
    second: np.ndarray  # (n, 3)
    params: np.ndarray  # (n, 4)
    footprint: np.ndarray  # (n,) metres that a pixel covers
    sky: np.ndarray  # (3,) colour that glass reflects

    def along(self) -> np.ndarray:
        """Return the horizontal coordinate on upright faces."""
        return np.where(self.face < 2, self.p[:, 1], self.p[:, 0])


def _blend(a: np.ndarray, b: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return a + (b - a) * amount[:, None]


def paint_plain(s: Surface) -> np.ndarray:
    """Even colour with a little dirt."""
    dirt = fractal(s.p[:, 0] + s.p[:, 1], s.p[:, 2], 1.5, 3, s.footprint)
    return s.colour * (1 + 0.1 * dirt)[:, None]


def paint_facade(s: Surface) -> np.ndarray:
    """House wall: params = floor height, window pitch, half width, number of the house."""
    floor_m, pitch_m, half_m, house = s.params.T
    u, v = s.along() + half_m + 50 * pitch_m, s.p[:, 2]
    fp = s.footprint
    column, a = cells(u, pitch_m)
    floor, b = cells(v, floor_m)
    kind = hash01(house, np.zeros(1))  # of the whole house
    stain = fractal(u + 31 * house, v, 4.0, 4, fp)
    wall = s.colour * (1 + 0.16 * stain)[:, None]
    course, _ = cells(v, 0.09)
    _, brick = cells(u + 0.11 * (course % 2), 0.23)
    _, bed = cells(v, 0.09)
    mortar = np.maximum(band(brick, 0, 0.02, fp + 0.005), band(bed, 0, 0.015, fp + 0.005))
    wall *= (1 - 0.35 * mortar * (kind > 0.5) * np.clip(0.05 / fp - 0.7, 0, 1))[:, None]
    is_ground = (floor == 0) & (v >= 0)
    has_shop = (hash01(house, np.full(1, 1)) > 0.55) & is_ground
    is_door = is_ground & ~has_shop & (hash01(house, column, np.full(1, 2)) > 0.72)
    side = np.where(has_shop, 0.06, 0.24 + 0.1 * hash01(house, np.full(1, 5))) * pitch_m
    sill = np.where(is_door, 0.0, np.where(has_shop, 0.12, 0.3)) * floor_m
    top = np.where(has_shop, 0.82, 0.78) * floor_m
    frame_m = 0.09
    outer = band(a, side - frame_m, pitch_m - side + frame_m, fp) * \
        band(b, sill - frame_m, top + frame_m, fp)
    inner = band(a, side, pitch_m - side, fp) * band(b, sill, top, fp)
    bar = band(np.abs(a - pitch_m / 2), 0, 0.03, fp + 0.01) * ~has_shop
    ledge = band(b, sill - 0.2, sill - frame_m, fp) * \
        band(a, side - 0.15, pitch_m - side + 0.15, fp) * ~is_door
    cornice = band(b, floor_m - 0.18, floor_m - 0.05, fp) * (kind < 0.7)
    room = hash01(house, column, floor, np.full(1, 3))
    glass = (0.02 + 0.05 * room)[:, None] + s.sky * (0.08 + 0.22 * room * b / floor_m)[:, None]
    curtain = (room > 0.6) * band(a, side, side + (pitch_m - 2 * side) * room * 0.5, fp)
    glass = _blend(glass, np.full((1, 3), 0.45), 0.7 * curtain * ~has_shop)
    door = s.second * (0.7 + 0.3 * room)[:, None]
    glass = np.where(is_door[:, None], door, glass)
    colour = _blend(wall, s.colour * 0.5 + 0.3, np.maximum(cornice, 0.8 * ledge))
    colour = _blend(colour, np.where((kind > 0.35)[:, None], [[0.62, 0.6, 0.57]], s.second), outer)
    colour = _blend(colour, glass, inner * (1 - bar * 0.8))
    return _blend(colour, s.colour * 0.45, band(v, -1.0, 0.45, fp) * ~is_door * 0.8)


def paint_roof(s: Surface) -> np.ndarray:
    """Tiled roof; its gable ends are wall."""
    fp = s.footprint
    _, row = cells(s.p[:, 2] + 0.3 * s.p[:, 1], 0.3)
    tiles = s.colour * (1 + 0.2 * fractal(s.world[:, 0], s.p[:, 2] + s.p[:, 1], 2.0, 4, fp)
                        - 0.3 * band(row, 0, 0.06, fp) * np.clip(0.1 / fp, 0, 1))[:, None]
    is_gable = s.face < 2
    return np.where(is_gable[:, None], s.second, tiles)


def paint_car(s: Surface) -> np.ndarray:
    """Car body: params = half length, half width, height, has big windows (van, bus)."""
    half_l, half_w, height, has_windows = s.params.T
    fp = s.footprint
    x, y, z = s.p.T
    h = z / height
    colour = s.colour * (1 + 0.03 * noise(x + 9 * y, z, 0.7, fp))[:, None]
    is_side, is_front, is_back = (s.face == 2) | (s.face == 3), s.face == 0, s.face == 1
    seams = sum(band(x, k * half_l - 0.01, k * half_l + 0.02, fp) for k in (-0.42, 0.02, 0.38))
    colour = colour * (1 - 0.5 * seams * is_side * np.clip(0.06 / fp, 0, 1))[:, None]
    dark = np.full((1, 3), 0.02)
    colour = _blend(colour, dark, band(h, -1, 0.16, fp / height))
    _, pane = cells(x + half_l, half_l * 0.5)
    windows = has_windows * band(h, 0.52, 0.86, fp / height) * np.where(
        is_side, band(pane, 0.06, half_l * 0.5 - 0.06, fp),
        (s.face < 2) * band(np.abs(y), -1, half_w - 0.15, fp))
    glass = 0.02 + s.sky * (0.25 * h)[:, None]
    colour = _blend(colour, glass, windows)
    lamp = band(np.abs(y), half_w * 0.62, half_w * 0.97, fp) * \
        np.where(has_windows > 0, band(h, 0.2, 0.38, fp / height),
                 band(h, 0.55, 0.88, fp / height))
    colour = _blend(colour, np.array([[0.55, 0.02, 0.02]]), lamp * is_back)
    colour = _blend(colour, np.array([[0.75, 0.75, 0.7]]), lamp * is_front)
    middle = band(np.abs(y), -1, half_w * 0.5, fp)
    colour = _blend(colour, dark, is_front * middle * band(h, 0.35, 0.7, fp / height) * 0.8)
    plate = band(np.abs(y), -1, 0.26, fp) * band(z, 0.2 * height, 0.2 * height + 0.12, fp)
    colour = _blend(colour, np.array([[0.65, 0.65, 0.6]]), plate * (is_front | is_back))
    # lacquer mirrors the sky, most where it faces up
    return _blend(colour, s.sky[None], np.where(s.face == 4, 0.22, 0.06))


def paint_cabin(s: Surface) -> np.ndarray:
    """Upper part of a car: params = half length, half width (bottom), height, taper."""
    half_l, half_w, height, taper = s.params.T
    fp = s.footprint
    x, _, z = s.p.T
    h = z / height
    reach = np.where(s.face < 2, half_w - taper * h, half_l)
    u = s.along()
    pane = band(np.abs(u), -1, np.where(s.face < 2, reach - 0.1, reach * 0.93), fp) * \
        band(h, 0.1, 0.88, fp / height)
    post = band(x, -0.12, 0.02, fp) * (s.face >= 2)
    glass = 0.012 + s.sky * (0.1 + 0.3 * h)[:, None]
    colour = _blend(s.colour * 0.9, glass, pane * (1 - post))
    roof = _blend(s.colour, s.sky[None], np.full(len(h), 0.22))
    return np.where((s.face == 4)[:, None], roof, colour)


def paint_wheel(s: Surface) -> np.ndarray:
    """Tyre and rim: params = radius."""
    r = np.hypot(s.p[:, 0], s.p[:, 2]) / s.params[:, 0]
    rim = band(r, -1, 0.62, s.footprint / s.params[:, 0]) * (s.face != 6)
    spokes = 0.75 + 0.25 * np.cos(5 * np.arctan2(s.p[:, 2], s.p[:, 0]))
    return _blend(np.full(s.p.shape, 0.015), s.second * spokes[:, None], rim)


def paint_bark(s: Surface) -> np.ndarray:
    """Trunks."""
    angle = np.arctan2(s.p[:, 1], s.p[:, 0])
    ridges = fractal(angle * 0.6, s.p[:, 2] * 0.2, 0.12, 3, s.footprint * 0.5)
    return s.colour * (1 + 0.6 * ridges)[:, None]


def leaf_noise(world: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return clumps of leaves at (n, 3) points, about -1..1."""
    x, y, z = world.T
    return 0.6 * fractal(x + 0.7 * z, y - 0.6 * z, 1.2, 5, footprint, 0.8) + \
        0.6 * fractal(y + 0.5 * x, z + 0.3 * x, 0.9, 4, footprint, 0.8)


def paint_foliage(s: Surface) -> np.ndarray:
    """Crowns, bushes, hedges."""
    clumps = leaf_noise(s.world, s.footprint)
    light = np.clip(0.75 + 1.1 * clumps, 0.12, 2.2)[:, None]
    return _blend(s.colour, s.second, np.clip(0.5 + clumps, 0, 1)) * light


def paint_cloth(s: Surface) -> np.ndarray:
    """Clothes: two colours, folds."""
    folds = fractal(s.p[:, 0] + s.p[:, 1], s.p[:, 2] * 0.4, 0.2, 2, s.footprint)
    return s.colour * (1 + 0.25 * folds)[:, None]


def paint_fence(s: Surface) -> np.ndarray:
    """Garden wall or planks: params = width of a plank."""
    number, within = cells(s.along(), s.params[:, 0])
    tone = 0.85 + 0.3 * hash01(number, np.full(1, 4))
    gap = band(within, 0, 0.02, s.footprint + 0.01) * np.clip(0.06 / s.footprint, 0, 1)
    stain = fractal(s.along() * 3, s.p[:, 2], 1.0, 3, s.footprint)
    return s.colour * (tone * (1 - 0.6 * gap) * (1 + 0.15 * stain))[:, None]


# the number of a material is its place in this table
MATERIALS: dict[str, Callable[[Surface], np.ndarray]] = {
    'plain': paint_plain, 'facade': paint_facade, 'roof': paint_roof, 'car': paint_car,
    'cabin': paint_cabin, 'wheel': paint_wheel, 'bark': paint_bark, 'foliage': paint_foliage,
    'cloth': paint_cloth, 'fence': paint_fence,
}
(PLAIN, FACADE, ROOF, CAR, CABIN, WHEEL, BARK, FOLIAGE, CLOTH, FENCE) = range(len(MATERIALS))
