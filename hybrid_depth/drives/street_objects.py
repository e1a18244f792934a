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
"""
What stands and moves in the synthetic street.

Each object is a group of solids around its own origin on the ground: x forward (houses: along the
street), y left (houses: away from the street), z up; metres.
"""
from __future__ import annotations

import numpy as np

from hybrid_depth.drives import paint
from hybrid_depth.drives.solids import box, cylinder, ellipsoid, hexahedron, join, Solids

CAR_COLOURS = ((0.55, 0.56, 0.58), (0.02, 0.02, 0.025), (0.7, 0.7, 0.7), (0.12, 0.13, 0.14),
               (0.35, 0.02, 0.02), (0.02, 0.05, 0.22), (0.04, 0.12, 0.08), (0.3, 0.27, 0.2),
               (0.45, 0.3, 0.03), (0.1, 0.22, 0.35), (0.25, 0.25, 0.26), (0.03, 0.04, 0.08))
WALL_COLOURS = ((0.55, 0.5, 0.4), (0.62, 0.6, 0.55), (0.35, 0.16, 0.1), (0.42, 0.24, 0.16),
                (0.5, 0.42, 0.25), (0.4, 0.4, 0.4), (0.58, 0.45, 0.36), (0.3, 0.32, 0.34),
                (0.65, 0.58, 0.42), (0.45, 0.5, 0.52))
ROOF_COLOURS = ((0.25, 0.09, 0.05), (0.1, 0.1, 0.11), (0.18, 0.1, 0.07), (0.2, 0.2, 0.2))
GREENS = ((0.05, 0.11, 0.02), (0.08, 0.14, 0.03), (0.04, 0.08, 0.03), (0.11, 0.13, 0.03),
          (0.13, 0.09, 0.02))

Colour = tuple[float, float, float]


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """Choose a colour and vary it a little."""
    chosen = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.85, 1.15)
    varied = np.clip(chosen * rng.uniform(0.93, 1.07, 3), 0.01, 0.85)
    return float(varied[0]), float(varied[1]), float(varied[2])


def _wheels(x: float, half_w: float, radius: float) -> list[Solids]:
    return [cylinder((sx, sy - (0.22 if sy > 0 else 0.0), radius), 1, radius, 0.22, paint.WHEEL,
                     [(0.02,) * 3, (0.35,) * 3], (radius,))
            for sx in (-x, x) for sy in (-half_w, half_w)]


def car(rng: np.random.Generator) -> Solids:
    """Make a saloon, estate or small car."""
    half_l, half_w = rng.uniform(1.85, 2.3), rng.uniform(0.83, 0.92)
    belt, roof = rng.uniform(0.82, 0.95), rng.uniform(1.4, 1.62)
    colour = pick(rng, CAR_COLOURS)
    back = rng.choice([-0.97, -0.72]) * half_l  # estate or saloon
    front = rng.uniform(0.38, 0.5) * half_l
    body = hexahedron((-half_l, half_l, -half_w, half_w),
                      (-half_l + 0.06, half_l - 0.12, -half_w + 0.05, half_w - 0.05), 0.2, belt,
                      paint.CAR, [colour], (half_l, half_w, belt - 0.2, 0))
    taper = 0.16
    cabin = hexahedron((back, front, -half_w + 0.06, half_w - 0.06),
                       (back + rng.uniform(0.2, 0.5), front - rng.uniform(0.7, 0.95),
                        -half_w + 0.06 + taper, half_w - 0.06 - taper), belt, roof, paint.CABIN,
                       [colour], ((front - back) / 2, half_w - 0.06, roof - belt, taper))
    return join([body, cabin, *_wheels(half_l * 0.62, half_w, 0.32)])


def van(rng: np.random.Generator) -> Solids:
    """Make a van, small lorry or bus."""
    is_bus = rng.random() < 0.25
    half_l = 5.2 if is_bus else rng.uniform(2.4, 3.2)
    half_w, top = (1.25, 2.95) if is_bus else (rng.uniform(0.95, 1.05), rng.uniform(1.9, 2.5))
    colour = pick(rng, CAR_COLOURS)
    slope = 0.1 if is_bus else rng.uniform(0.4, 0.9)
    body = hexahedron((-half_l, half_l, -half_w, half_w),
                      (-half_l + 0.05, half_l - slope, -half_w + 0.08, half_w - 0.08), 0.28, top,
                      paint.CAR, [colour], (half_l, half_w, top - 0.28, 1))
    return join([body, *_wheels(half_l * 0.64, half_w, 0.42 if is_bus else 0.35)])


def person(rng: np.random.Generator) -> Solids:
    """Make a pedestrian of 1.5 to 1.9 m."""
    h = rng.uniform(1.5, 1.9)
    top, legs, skin = (pick(rng, CAR_COLOURS), pick(rng, ((0.03, 0.03, 0.05), (0.08, 0.1, 0.16))),
                       pick(rng, ((0.5, 0.33, 0.24), (0.2, 0.11, 0.07))))
    stride = rng.uniform(0.05, 0.2)
    hips, neck = 0.48 * h, 0.84 * h
    return join([
        *(cylinder((sx * stride, sy, 0.0), 2, 0.085, hips, paint.CLOTH, [legs])
          for sx, sy in ((1, 0.1), (-1, -0.1))),
        hexahedron((-0.12, 0.12, -0.19, 0.19), (-0.13, 0.13, -0.23, 0.23), hips, neck,
                   paint.CLOTH, [top]),
        *(cylinder((0.0, y, hips - 0.05), 2, 0.055, neck - hips, paint.CLOTH, [top])
          for y in (-0.27, 0.27)),
        ellipsoid((0, 0, 0.92 * h), (0.1, 0.09, 0.13), paint.PLAIN, [skin])])


def tree(rng: np.random.Generator) -> Solids:
    """Make a tree: trunk and a crown of several ellipsoids."""
    height, spread = rng.uniform(5, 11), rng.uniform(1.4, 2.8)
    base = rng.uniform(2.2, 3.2)
    green = pick(rng, GREENS)
    light = (green[0] * 1.7, green[1] * 1.6, green[2] * 1.4)
    parts = [cylinder((0, 0, 0), 2, rng.uniform(0.1, 0.24), base + 1.5, paint.BARK,
                      [pick(rng, ((0.1, 0.075, 0.05), (0.16, 0.14, 0.11)))])]
    for _ in range(rng.integers(4, 7)):
        radius = spread * rng.uniform(0.5, 0.85)
        tall = radius * rng.uniform(0.8, 1.2)
        x, y = rng.uniform(-0.6, 0.6, 2) * spread
        z = rng.uniform(base + tall, max(height - tall, base + tall + 0.5))
        parts.append(ellipsoid((x, y, z), (radius, radius, tall), paint.FOLIAGE, [green, light]))
    return join(parts)


def bush(rng: np.random.Generator, size: float) -> Solids:
    """Make a bush, or with a large ``size`` (m) a distant group of trees."""
    green = pick(rng, GREENS)
    light = (green[0] * 1.6, green[1] * 1.5, green[2] * 1.3)
    return join([ellipsoid((x, y, 0.4 * size), (rng.uniform(0.5, 0.9) * size,) * 2
                           + (rng.uniform(0.5, 0.8) * size,), paint.FOLIAGE, [green, light])
                 for x, y in rng.uniform(-0.6, 0.6, (3, 2)) * size])


def lamp(rng: np.random.Generator, height: float) -> Solids:
    """Make a street lamp whose arm points to +y."""
    grey = [(rng.uniform(0.08, 0.3),) * 3]
    return join([cylinder((0, 0, 0), 2, 0.07, height, paint.PLAIN, grey),
                 cylinder((0, 0, 0), 2, 0.11, 1.0, paint.PLAIN, grey),
                 cylinder((0, 0, height - 0.05), 1, 0.04, 1.4, paint.PLAIN, grey),
                 box((-0.12, 0.12), (1.2, 1.8), (height - 0.12, height + 0.02), paint.PLAIN,
                     grey)])


def sign(rng: np.random.Generator) -> Solids:
    """Make a traffic sign that faces -x."""
    colour = pick(rng, ((0.5, 0.03, 0.03), (0.03, 0.1, 0.45), (0.7, 0.55, 0.05), (0.65,) * 3))
    return join([cylinder((0, 0, 0), 2, 0.035, 2.7, paint.PLAIN, [(0.3,) * 3]),
                 cylinder((-0.05, 0, 2.4), 0, 0.33, 0.03, paint.PLAIN, [colour])])


def bin_or_box(rng: np.random.Generator) -> Solids:
    """Make a dustbin, cabinet or letter box."""
    colour = pick(rng, ((0.03, 0.08, 0.04), (0.1, 0.1, 0.1), (0.5, 0.4, 0.03), (0.3, 0.3, 0.3)))
    w, d, h = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.35), rng.uniform(0.8, 1.4)
    return box((-w, w), (-d, d), (0, h), paint.PLAIN, [colour])


def wall(rng: np.random.Generator, length: float) -> Solids:
    """Make a hedge, fence or garden wall from x = 0 to ``length``."""
    h = rng.uniform(0.7, 1.8)
    if rng.random() < 0.4:
        green = pick(rng, GREENS)
        return box((0, length), (-0.4, 0.4), (0, h), paint.FOLIAGE,
                   [green, (green[0] * 1.6, green[1] * 1.5, green[2] * 1.3)])
    colour = pick(rng, ((0.28, 0.2, 0.12), (0.55, 0.53, 0.5), (0.3, 0.14, 0.1), (0.1, 0.12, 0.1)))
    return box((0, length), (-0.08, 0.08), (0, h), paint.FENCE, [colour],
               (rng.choice([0.14, 0.4, 2.0]),))


def house(rng: np.random.Generator, width: float, depth: float, floors: int) -> Solids:
    """Make a house from x = 0 to ``width``, its front at y = 0."""
    floor_m = rng.uniform(2.8, 3.4)
    pitch = width / max(2, round(width / rng.uniform(2.2, 3.4)))
    top = floors * floor_m
    colour = pick(rng, WALL_COLOURS)
    trim, roof = pick(rng, CAR_COLOURS), pick(rng, ROOF_COLOURS)
    number = int(rng.integers(1, 10000))
    parts = [box((0, width), (0, depth), (0, top), paint.FACADE, [colour, trim],
                 (floor_m, pitch, width / 2, number))]
    if floors <= 4 and rng.random() < 0.75:
        ridge = top + depth * rng.uniform(0.22, 0.4)
        eave = 0.35
        parts.append(hexahedron((0, width, -eave, depth + eave),
                                (0, width, depth / 2 - 0.01, depth / 2 + 0.01), top - 0.05, ridge,
                                paint.ROOF, [roof, colour]))
        if rng.random() < 0.6:
            x = rng.uniform(1, width - 1)
            parts.append(box((x - 0.35, x + 0.35), (depth * 0.4, depth * 0.55),
                             (top, ridge + 0.6), paint.PLAIN, [(0.3, 0.15, 0.1)]))
    else:
        edge = (colour[0] * 0.8, colour[1] * 0.8, colour[2] * 0.8)
        parts.append(box((-0.05, width + 0.05), (-0.25, depth + 0.25), (top - 0.1, top + 0.35),
                         paint.PLAIN, [edge]))
    if floors >= 2 and rng.random() < 0.35:
        balcony = (0.4, 0.4, 0.4)
        for floor in range(1, floors):
            parts.append(box((pitch, width - pitch), (-1.0, 0.0),
                             (floor * floor_m - 0.12, floor * floor_m + 0.08), paint.PLAIN,
                             [balcony]))
            parts.append(box((pitch, width - pitch), (-1.0, -0.95),
                             (floor * floor_m, floor * floor_m + 0.95), paint.FENCE, [colour],
                             (0.14,)))
    return join(parts)
