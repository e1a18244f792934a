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
"""The ground of the synthetic street: road, kerbs, grass, pavement and side streets."""
from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from hybrid_depth.drives.solids import RayGrid
from hybrid_depth.drives.texture import band, cells, fractal, hash01, noise

HORIZON_M = 1000.0  # ground and sky meet here


@dataclass(frozen=True)
class Ground:
    """
    Cross-section of the street along a gently curving centre line y(x).

    Level 0 is the road; beyond the kerbs the ground lies ``kerb_m`` higher, but in side streets.
    """

    amplitude_m: np.ndarray  # (2,) of the two sines that make the centre line
    length_m: np.ndarray  # (2,)
    phase: np.ndarray  # (2,)
    road_half_m: float
    kerb_m: float  # height of the kerb
    grass_m: float  # width of the strip between kerb and pavement, may be 0
    pavement_m: float
    crossings_m: np.ndarray  # (C,) x of the middle of side streets
    crossing_half_m: float
    colours: np.ndarray  # (5, 3) asphalt, pavement, grass, yard, paint; linear
    style: np.ndarray  # (4,) 0..1: dashes, edge lines, patches, zebra crossings

    def centre(self, x: np.ndarray) -> np.ndarray:
        """Return y of the centre line; 0 at x = 0."""
        x = np.asarray(x)
        result: np.ndarray = sum(
            (a * (np.sin(x / length + phase) - math.sin(phase))
             for a, length, phase in zip(*self._sines(), strict=True)), np.zeros_like(x))
        return result

    def slope(self, x: np.ndarray) -> np.ndarray:
        """Return dy/dx of the centre line."""
        x = np.asarray(x)
        result: np.ndarray = sum((a / length * np.cos(x / length + phase)
                                  for a, length, phase in zip(*self._sines(), strict=True)),
                                 np.zeros_like(x))
        return result

    def _sines(self) -> tuple[list[float], list[float], list[float]]:
        # plain floats leave float32 positions float32
        return self.amplitude_m.tolist(), self.length_m.tolist(), self.phase.tolist()

    def lateral(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance from the centre line, left positive."""
        result: np.ndarray = (y - self.centre(x)) / np.hypot(1, self.slope(x))
        return result

    def at(self, x: float, lateral: float) -> tuple[float, float, float]:
        """Return (x, y, yaw) of the place ``lateral`` metres left of the centre line."""
        slope = float(self.slope(np.float64(x)))
        return x, float(self.centre(np.float64(x)) + lateral * np.hypot(1, slope)), \
            float(np.arctan(slope))

    def from_crossing(self, x: np.ndarray | float) -> np.ndarray:
        """Return the distance along x to the nearest side street's edge; negative within it."""
        if not len(self.crossings_m):
            return np.full(np.shape(x), np.inf)
        after = np.clip(np.searchsorted(self.crossings_m, x), 0, len(self.crossings_m) - 1)
        before = np.maximum(after - 1, 0)
        distance: np.ndarray = np.minimum(np.abs(self.crossings_m[after] - x),
                                          np.abs(self.crossings_m[before] - x))
        return distance - self.crossing_half_m

    def is_raised(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Say for places (n,) whether the ground there lies at kerb height, (n,) bool."""
        result: np.ndarray = ((np.abs(self.lateral(x, y)) > self.road_half_m)
                              & (self.from_crossing(x) > 0))
        return result


def cast_ground(ground: Ground, grid: RayGrid) -> tuple[np.ndarray, np.ndarray]:
    """
    Return where the rays meet the ground.

    Inverse depth (H, W) float64, 0 where they do not meet it, and the kind of ground (H, W) int8:
    0 road level, 1 kerb height, 2 face of a kerb.
    """
    camera = grid.world_T_camera[:3, 3]
    row, column = grid.affine(np.array([0.0, 0.0, 1.0]))
    low = row / -camera[2] + column / -camera[2]
    high = low * (camera[2] / (camera[2] - ground.kerb_m))
    v, u = np.nonzero(high > 1 / HORIZON_M)
    (row_x, column_x), (row_y, column_y) = (grid.affine(axis) for axis in np.eye(3)[:2])
    dx, dy = row_x[u] + column_x[v, 0], row_y[u] + column_y[v, 0]
    w_low, w_high = low[v, u], high[v, u]

    def raised(w: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        return ground.is_raised(camera[0] + dx[rows] / w, camera[1] + dy[rows] / w)
    on_pavement = raised(w_high)
    w = np.where(on_pavement, w_high, w_low)
    # a ray that passes above the road at kerb height and ends under the pavement met a kerb
    beside = np.nonzero(~on_pavement)[0]
    kerb = beside[raised(w_low[beside], beside)]
    near, far = 1 / w_high[kerb], 1 / w_low[kerb]
    for _ in range(24):
        middle = (near + far) / 2
        inside = raised(1 / middle, kerb)
        near, far = np.where(inside, near, middle), np.where(inside, middle, far)
    w[kerb] = 1 / far
    inverse_depth = np.zeros(low.shape)
    inverse_depth[v, u] = np.where(w > 1 / HORIZON_M, w, 0)
    kind = np.zeros(low.shape, np.int8)
    kind[v, u] = on_pavement
    kind[v[kerb], u[kerb]] = 2
    return inverse_depth, kind


def paint_ground(ground: Ground, points: np.ndarray, across_m: np.ndarray,
                 along_m: np.ndarray) -> np.ndarray:
    """
    Return the reflectance (n, 3) of ground points (n, 3).

    A pixel covers ``across_m`` (n,) to the side and ``along_m`` (n,) away from the camera.
    """
    x, y, z = points.T
    lateral = ground.lateral(x, y)
    side = np.abs(lateral)
    crossing = ground.from_crossing(x)
    footprint = np.sqrt(across_m * along_m)
    asphalt, pavement, grass, yard, _ = ground.colours
    rough = fractal(x, y, 8.0, 4, footprint)
    grain = fractal(x, y, 0.25, 3, footprint)

    edge = ground.road_half_m
    is_grass = band(side, edge, edge + ground.grass_m, across_m)
    is_pavement = band(side, edge + ground.grass_m, edge + ground.grass_m + ground.pavement_m,
                       across_m)
    slab = _joints(x, 0.6, along_m) * _joints(side, 0.6, across_m)
    lush = (1 + 0.5 * fractal(x, y, 0.8, 4, footprint, 0.8) + 0.25 * rough)[:, None]
    is_lawn = ground.style[1] < 0.6
    beyond = yard * (lush if is_lawn else (1 + 0.2 * rough + 0.15 * grain)[:, None])
    colour = beyond
    colour = _mix(colour, grass * lush, is_grass)
    slabs = pavement * ((1 + 0.18 * rough + 0.12 * grain) * (1 - 0.35 * slab))[:, None]
    colour = _mix(colour, slabs, is_pavement)
    stone = pavement * (1.15 + 0.2 * grain - 0.3 * _joints(x, 1.0, along_m))[:, None]
    colour = _mix(colour, stone, band(side, edge - 0.02, edge + 0.15, across_m))
    road = np.maximum(band(side, -edge, edge, across_m), band(crossing, -1e3, 0.0, along_m))
    road *= z < ground.kerb_m / 2
    is_kerb_face = (z > 1e-4) & (z < ground.kerb_m - 1e-4)
    tracks = band(np.abs(side - edge / 2), 0.5, 1.0, across_m + 0.3)
    worn = asphalt * (1 + 0.2 * rough + 0.22 * grain - 0.1 * tracks)[:, None]
    worn *= (1 - 0.3 * _patches(ground, x, lateral, across_m, along_m))[:, None]
    colour = _mix(colour, _markings(ground, worn, x, lateral, crossing, across_m, along_m), road)
    colour = np.where(is_kerb_face[:, None], stone * 0.8, colour)
    return np.clip(colour, 0.005, 0.9)


def _mix(a: np.ndarray, b: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return a + (b - a) * amount[:, None]


def _joints(position: np.ndarray, period: float, footprint: np.ndarray) -> np.ndarray:
    """Return the darkness of joints each ``period`` metres; fades out with distance."""
    _, within = cells(position, period)
    return band(within, 0, 0.02, footprint + 0.01) * np.clip(period / 3 / footprint - 1, 0, 1)


def _patches(ground: Ground, x: np.ndarray, lateral: np.ndarray, across_m: np.ndarray,
             along_m: np.ndarray) -> np.ndarray:
    """Return where the asphalt was repaired, (n,) 0..1."""
    number, within = cells(x, 11.0)
    row = hash01(number, np.full(1, int(1e6 * ground.style[2])))
    middle = (2 * hash01(number, np.full(1, 3)) - 1) * ground.road_half_m
    has = row < 0.5 * ground.style[2]
    return has * band(lateral, middle - 0.8, middle + 0.8, across_m) * \
        band(within, 2.0, 3.0 + 10 * row, along_m)


def _markings(ground: Ground, worn: np.ndarray, x: np.ndarray, lateral: np.ndarray,
              crossing: np.ndarray, across_m: np.ndarray, along_m: np.ndarray) -> np.ndarray:
    """Paint lane markings onto the asphalt colours ``worn`` (n, 3)."""
    dash_m = 3.0 if ground.style[0] < 0.6 else 6.0
    _, within = cells(x, 3 * dash_m)
    on = band(lateral, -0.07, 0.07, across_m) * band(within, 0, dash_m, along_m)
    if ground.style[1] > 0.4:
        inset = ground.road_half_m - 0.35 if ground.style[1] > 0.7 else ground.road_half_m - 2.2
        on = on + band(np.abs(lateral), inset, inset + 0.12, across_m)
    on = on * band(crossing, 1.0, 1e3, along_m)
    if ground.style[3] > 0.5:
        _, stripe = cells(lateral, 1.0)
        zebra = band(stripe, 0.25, 0.75, across_m) * band(crossing, 1.0, 4.0, along_m)
        on = np.maximum(on * band(crossing, 5.0, 1e3, along_m), zebra)
    rubbed = 0.85 + 0.3 * noise(x, lateral, 0.3, np.sqrt(across_m * along_m))
    return _mix(worn, np.broadcast_to(ground.colours[4], worn.shape), np.clip(on * rubbed, 0, 1))
