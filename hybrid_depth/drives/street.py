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
"""Layout of the synthetic street: what stands where, what moves how, and the light."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybrid_depth.drives import street_objects as objects
from hybrid_depth.drives.ground import Ground
from hybrid_depth.drives.solids import join, Solids

BEHIND_M = 25.0
AHEAD_M = 260.0  # beyond what the camera reaches


@dataclass(frozen=True)
class Mover:
    """An object that follows the street."""

    solids: Solids
    x_m: float  # at time 0
    lateral_m: float
    speed_mps: float  # along x; negative comes towards the start

    def at(self, ground: Ground, time_s: float) -> Solids:
        """Return the solids where they are at ``time_s``."""
        x, y, yaw = ground.at(self.x_m + self.speed_mps * time_s, self.lateral_m)
        return self.solids.moved(yaw + (np.pi if self.speed_mps < 0 else 0.0), (x, y, 0.0))


@dataclass(frozen=True)
class Light:
    """Sun, sky and air; colours are linear."""

    sun_direction: np.ndarray  # (3,) towards the sun
    sun: np.ndarray  # (3,) colour; 0 = overcast
    ambient: np.ndarray  # (3,)
    zenith: np.ndarray  # (3,)
    horizon: np.ndarray  # (3,)
    cloud: float  # 0..1
    haze_m: float  # distance at which 63 % is haze
    exposure: float


@dataclass(frozen=True)
class Street:
    """A whole scene, of which any moment can be rendered."""

    seed: int
    ground: Ground
    static: Solids
    movers: tuple[Mover, ...]
    light: Light
    lane_m: float  # lateral of the ego lane's middle


def make_street(seed: int, length_m: float = 60.0) -> Street:
    """Lay out the street of ``seed`` for a drive of ``length_m`` from x = 0."""
    rng = np.random.default_rng([seed, 11])
    end = length_m + AHEAD_M
    lane_w = rng.uniform(2.9, 3.6)
    parking_m = rng.choice([0.0, 2.1, 2.2])
    ground = _ground(rng, lane_w + parking_m, end)
    density = rng.uniform(0.35, 1.0)
    static = [*_houses(rng, ground, end), *_greenery(rng, ground, end, density),
              *_furniture(rng, ground, end), *_parked(rng, ground, end, parking_m, density),
              *_backdrop(rng, ground, end)]
    return Street(seed, ground, join(static), tuple(_movers(rng, ground, lane_w, length_m)),
                  _light(rng), -lane_w / 2)


def _ground(rng: np.random.Generator, road_half_m: float, end: float) -> Ground:
    crossings = np.cumsum(rng.uniform(35, 90, 12))
    half = rng.uniform(3.0, 4.5)
    asphalt = rng.uniform(0.07, 0.17) * rng.uniform(0.95, 1.05, 3)
    pavement = rng.uniform(0.2, 0.36) * np.array([1.02, 1.0, 0.95]) * rng.uniform(0.95, 1.05, 3)
    grass = np.array([0.09, 0.14, 0.035]) * rng.uniform(0.7, 1.3)
    style = rng.random(4)
    yard = grass * 1.1 if style[1] < 0.6 else pavement * rng.uniform(0.6, 0.9)
    colours = np.stack([asphalt, pavement, grass, yard, np.full(3, rng.uniform(0.5, 0.7))])
    return Ground(rng.uniform(-1, 1, 2) * (5.0, 1.2), np.array([95.0, 40.0]),
                  rng.uniform(0, 2 * np.pi, 2), road_half_m, rng.uniform(0.08, 0.15),
                  rng.choice([0.0, 1.2, 2.0]), rng.uniform(1.6, 3.4),
                  crossings[crossings < end], half, colours, style)


def _put(ground: Ground, solids: Solids, x: float, lateral: float, turn: float = 0.0) -> Solids:
    px, py, yaw = ground.at(x, lateral)
    return solids.moved(yaw + turn, (px, py, 0.0))


def _pavement_edge(ground: Ground) -> float:
    return ground.road_half_m + ground.grass_m + ground.pavement_m


def _houses(rng: np.random.Generator, ground: Ground, end: float) -> list[Solids]:
    placed = []
    is_town = rng.random() < 0.55
    base = rng.uniform(0.0, 2.0) if is_town else rng.uniform(2.5, 8.0)
    for side in (-1, 1):
        x = -BEHIND_M
        while x < end:
            width = rng.uniform(8, 18) if is_town else rng.uniform(8, 13)
            gap = (0.0 if rng.random() < 0.8 else rng.uniform(2, 8)) if is_town else \
                rng.uniform(3, 12)
            lateral = _pavement_edge(ground) + max(0.05, base + rng.uniform(-0.6, 0.8))
            if ground.from_crossing(np.array([x, x + width, x + width / 2])).min() > 1.0:
                floors = int(rng.integers(2, 6) if is_town else rng.integers(1, 4))
                home = objects.house(rng, width, rng.uniform(8, 13), floors)
                # its front is at y = 0, behind it +y: on the right it is turned round
                placed.append(_put(ground, home, x if side > 0 else x + width, side * lateral,
                                   0.0 if side > 0 else np.pi))
                if not is_town and base > 3.5 and rng.random() < 0.7:
                    fence = objects.wall(rng, width + gap * 0.6)
                    placed.append(_put(ground, fence, x, side * (_pavement_edge(ground) + 0.5)))
                x += width + gap
            else:
                x += 4.0
    return placed


def _greenery(rng: np.random.Generator, ground: Ground, end: float,
              density: float) -> list[Solids]:
    placed = []
    room = ground.grass_m or 1.0
    for side in (-1, 1):
        if rng.random() < 0.8:
            step = rng.uniform(7, 16) / density
            for x in np.arange(-BEHIND_M + rng.uniform(0, step), end, step):
                if ground.from_crossing(x) > 4 and rng.random() < 0.85:
                    placed.append(_put(ground, objects.tree(rng), x + rng.uniform(-1, 1),
                                       side * (ground.road_half_m + 0.45 * room + 0.2),
                                       rng.uniform(0, 6.28)))
        for x in rng.uniform(-BEHIND_M, end, int(25 * density)):
            if ground.from_crossing(x) > 3:
                size = rng.uniform(0.5, 1.1)
                placed.append(_put(ground, objects.bush(rng, size), x,
                                   side * (_pavement_edge(ground) + rng.uniform(1.2, 2.2))))
    return placed


def _furniture(rng: np.random.Generator, ground: Ground, end: float) -> list[Solids]:
    placed = []
    height = rng.uniform(5, 9)
    lamp_side = rng.choice([-1, 1])
    for number, x in enumerate(np.arange(-10 + rng.uniform(0, 15), end, rng.uniform(22, 34))):
        side = lamp_side if number % 2 else -lamp_side
        placed.append(_put(ground, objects.lamp(rng, height), x,
                           side * (ground.road_half_m + 0.6), np.pi if side > 0 else 0.0))
    for x in rng.uniform(0, end, int(end / 14)):
        side = rng.choice([-1, 1])
        thing = objects.sign(rng) if rng.random() < 0.5 else objects.bin_or_box(rng)
        placed.append(_put(ground, thing, x, side * (ground.road_half_m + rng.uniform(0.5, 0.9))))
    for x in rng.uniform(0, end, int(end / 18)):
        side = rng.choice([-1, 1])
        lateral = float(side * (ground.road_half_m + ground.grass_m
                                + rng.uniform(0.3, 0.9) * ground.pavement_m))
        placed.append(_put(ground, objects.person(rng), x, lateral, rng.uniform(0, 6.28)))
    return placed


def _parked(rng: np.random.Generator, ground: Ground, end: float, parking_m: float,
            density: float) -> list[Solids]:
    placed = []
    for side in (-1, 1):
        x = -BEHIND_M + rng.uniform(0, 6)
        while parking_m and x < end:
            vehicle = objects.van(rng) if rng.random() < 0.12 else objects.car(rng)
            half = float(np.abs(vehicle.corners[..., 0]).max())
            if rng.random() < density and ground.from_crossing(x + half) > half + 4:
                turn = 0.0 if side < 0 else np.pi
                placed.append(_put(ground, vehicle, x + half,
                                   side * (ground.road_half_m - 1.1 + rng.uniform(-0.12, 0.1)),
                                   turn + rng.normal(0, 0.015)))
            x += 2 * half + rng.uniform(0.7, 2.5)
    return placed


def _backdrop(rng: np.random.Generator, ground: Ground, end: float) -> list[Solids]:
    """Close the view between the houses, in side streets and at the end of the street."""
    placed = []
    for side in (-1, 1):
        for x in np.arange(-BEHIND_M, end + 60, 17):
            far = rng.uniform(38, 75)
            if rng.random() < 0.45:
                block = objects.house(rng, rng.uniform(12, 20), 12.0, int(rng.integers(2, 6)))
                placed.append(_put(ground, block, x, side * far, 0.0 if side > 0 else np.pi))
            else:
                placed.append(_put(ground, objects.bush(rng, rng.uniform(6, 11)), x, side * far))
    for lateral in np.arange(-70.0, 71.0, 14.0):
        placed.append(_put(ground, objects.bush(rng, rng.uniform(7, 13)),
                           end + rng.uniform(20, 60), lateral))
    return placed


def _movers(rng: np.random.Generator, ground: Ground, lane_w: float,
            length_m: float) -> list[Mover]:
    movers = []
    x = rng.uniform(15, 40)
    while x < length_m + 160:
        vehicle = objects.van(rng) if rng.random() < 0.2 else objects.car(rng)
        movers.append(Mover(vehicle, x, lane_w / 2 + rng.uniform(-0.2, 0.2),
                            -rng.uniform(6, 12)))
        x += rng.uniform(18, 60)
    x = rng.uniform(12, 35)
    for _ in range(rng.integers(0, 4)):
        vehicle = objects.van(rng) if rng.random() < 0.2 else objects.car(rng)
        movers.append(Mover(vehicle, x, -lane_w / 2 + rng.uniform(-0.15, 0.15),
                            8.0 + 0.02 * x))
        x += rng.uniform(11, 40)
    for x in rng.uniform(5, length_m + 60, rng.integers(2, 9)):
        side = rng.choice([-1, 1])
        lateral = side * (ground.road_half_m + ground.grass_m + 0.5 * ground.pavement_m)
        movers.append(Mover(objects.person(rng), x, lateral,
                            float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.6))))
    return movers


def _light(rng: np.random.Generator) -> Light:
    elevation, azimuth = np.radians(rng.uniform(22, 60)), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(azimuth) * np.cos(elevation),
                          np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    cloud = rng.random()
    strength = 0.0 if cloud > 0.8 else rng.uniform(1.2, 2.1)
    warm = np.array([1.0, 0.93, 0.82]) if elevation < 0.6 else np.array([1.0, 0.97, 0.92])
    overcast = np.array([0.72, 0.75, 0.8])
    blue = np.array([0.2, 0.38, 0.75]) * rng.uniform(0.8, 1.2)
    zenith = blue + (overcast - blue) * min(1.0, cloud * 1.1)
    horizon = 0.4 * zenith + 0.6 * np.array([0.85, 0.88, 0.92])
    ambient = np.array([0.5, 0.55, 0.64]) * (1.0 if strength else 2.1) * rng.uniform(0.85, 1.2)
    return Light(direction, strength * warm, ambient, zenith, horizon, cloud,
                 rng.uniform(250, 1200), rng.uniform(0.62, 0.9))
