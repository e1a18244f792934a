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
Convex solids and the exact casting of a camera's rays at them.

A solid is six half-spaces (hexahedron), a quadric (ellipsoid) or a quadric between two half-spaces
(cylinder). Rays have z = 1 in the camera, so a hit's parameter is its depth, and the inverse depth
w of a plane is an affine function of the pixel: a hexahedron costs a few additions per pixel.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

QUADRIC = 6  # face number of a hit on the curved surface; 0..5 are +x -x +y -y +z -z
NEAR_M = 0.05
_PAIRS = np.array([(i, j) for i in range(8) for j in range(i + 1, 8)])
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True)
class Solids:
    """N solids of any kind, stacked; metres."""

    corners: np.ndarray  # (N, 8, 3) float64, their hull contains the solid
    planes: np.ndarray  # (N, 6, 4) float64: n.p <= d inside; NaN where the solid has no such face
    quadric: np.ndarray  # (N, 3, 3) float64 Q: |Q (p - origin)| <= 1 inside; NaN = none
    rotation: np.ndarray  # (N, 3, 3) float64 world_R_local
    origin: np.ndarray  # (N, 3) float64 of the local frame
    material: np.ndarray  # (N,) int, row of paint.MATERIALS
    colour: np.ndarray  # (N, 2, 3) float64, main and second, linear light 0..1
    params: np.ndarray  # (N, 4) float64, by material

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, keep: np.ndarray) -> Solids:
        return Solids(*(getattr(self, entry.name)[keep] for entry in fields(self)))

    def moved(self, yaw: float, position: Sequence[float]) -> Solids:
        """Turn by ``yaw`` about z, then shift by ``position`` (3,)."""
        R = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        shift = np.asarray(position, np.float64)
        normals = self.planes[..., :3] @ R.T
        planes = np.concatenate([normals, (self.planes[..., 3] + normals @ shift)[..., None]], -1)
        return replace(self, corners=self.corners @ R.T + shift, planes=planes,
                       quadric=self.quadric @ R.T, rotation=R @ self.rotation,
                       origin=self.origin @ R.T + shift)


def join(groups: Sequence[Solids]) -> Solids:
    """Stack several groups into one."""
    return Solids(*(np.concatenate([getattr(group, entry.name) for group in groups])
                    for entry in fields(Solids)))


def _solid(corners: np.ndarray, planes: np.ndarray, quadric: np.ndarray, origin: np.ndarray,
           material: int, colours: Sequence[Sequence[float]], params: Sequence[float]) -> Solids:
    padded = np.full((1, 6, 4), np.nan)
    padded[0, :len(planes)] = planes
    pair = np.array([colours[0], colours[-1]], np.float64)[None]
    four = np.zeros((1, 4))
    four[0, :len(params)] = params
    return Solids(corners[None], padded, quadric[None], np.eye(3)[None], origin[None],
                  np.array([material]), pair, four)


def hexahedron(bottom: Sequence[float], top: Sequence[float], z0: float, z1: float, material: int,
               colours: Sequence[Sequence[float]], params: Sequence[float] = ()) -> Solids:
    """
    Make a solid between two rectangles (x0, x1, y0, y1) at heights ``z0`` and ``z1``.

    Equal rectangles make a box, a smaller top a frustum, a top of no width a roof. The local
    origin lies in the middle of the bottom.
    """
    (a0, a1, b0, b1), (c0, c1, d0, d1), h = bottom, top, z1 - z0
    planes = []
    for axis, sign, low, high in ((0, 1, a1, c1), (0, -1, a0, c0), (1, 1, b1, d1),
                                  (1, -1, b0, d0)):
        n = np.zeros(3)
        n[axis], n[2] = sign * h, sign * (low - high)
        n /= np.linalg.norm(n)
        planes.append((*n, n[axis] * low + n[2] * z0))
    planes += [(0, 0, 1, z1), (0, 0, -1, -z0)]
    corners = np.array([(x, y, z) for x0, x1, y0, y1, z in ((*bottom, z0), (*top, z1))
                        for x in (x0, x1) for y in (y0, y1)], np.float64)
    origin = np.array([(a0 + a1) / 2, (b0 + b1) / 2, z0])
    return _solid(corners, np.array(planes), np.full((3, 3), np.nan), origin, material, colours,
                  params)


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], material: int,
        colours: Sequence[Sequence[float]], params: Sequence[float] = ()) -> Solids:
    """Make an axis-aligned box."""
    rectangle = (*x, *y)
    return hexahedron(rectangle, rectangle, *z, material, colours, params)


def ellipsoid(centre: Sequence[float], radii: Sequence[float], material: int,
              colours: Sequence[Sequence[float]], params: Sequence[float] = ()) -> Solids:
    """Make an axis-aligned ellipsoid."""
    origin, half = np.asarray(centre, np.float64), np.asarray(radii, np.float64)
    return _solid(origin + _CORNERS * half, np.empty((0, 4)), np.diag(1 / half), origin, material,
                  colours, params)


def cylinder(base: Sequence[float], axis: int, radius: float, length: float, material: int,
             colours: Sequence[Sequence[float]], params: Sequence[float] = ()) -> Solids:
    """Make a cylinder from the middle of its base along ``axis`` 0, 1 or 2."""
    origin = np.asarray(base, np.float64)
    n = np.eye(3)[axis]
    planes = np.array([(*n, n @ origin + length), (*-n, -(n @ origin))])
    half = np.where(n > 0, length / 2, radius)
    return _solid(origin + n * length / 2 + _CORNERS * half, planes,
                  np.diag(np.where(n > 0, 0.0, 1 / radius)), origin, material, colours, params)


@dataclass(frozen=True)
class RayGrid:
    """The rays of a pinhole image, separable: direction in the world = R @ (x[u], y[v], 1)."""

    x: np.ndarray  # (W,) float64
    y: np.ndarray  # (H,) float64
    world_T_camera: np.ndarray  # (4, 4)

    def affine(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return n.direction as a row (W,) and a column (H, 1) whose sum it is."""
        a, b, c = n @ self.world_T_camera[:3, :3]
        return a * self.x + c, (b * self.y)[:, None]


@dataclass(frozen=True)
class Hits:
    """What each ray meets first."""

    inverse_depth: np.ndarray  # (H, W) float64, 1/m; 0 = nothing
    solid: np.ndarray  # (H, W) int32, row of the Solids; -1 = none of them
    face: np.ndarray  # (H, W) int8


def cast(solids: Solids, grid: RayGrid, background: np.ndarray, background_face: np.ndarray,
         cutout: Callable[[int, np.ndarray, np.ndarray], np.ndarray] | None = None) -> Hits:
    """
    Cast every ray of ``grid`` at the solids.

    They stand in front of the inverse depths ``background`` (H, W), whose hits have the face
    ``background_face`` (H, W) int8.

    ``cutout(solid, points (n, 3), directions (n, 3)) -> (n,) bool`` may let rays pass.
    """
    hits = Hits(background.copy(), np.full(background.shape, -1, np.int32),
                background_face.copy())
    camera = grid.world_T_camera[:3, 3]
    for index, (u0, u1, v0, v1, nearest) in _windows(solids, grid):
        part = RayGrid(grid.x[u0:u1], grid.y[v0:v1], grid.world_T_camera)
        window = (slice(v0, v1), slice(u0, u1))
        if nearest > 0 and 1 / nearest <= hits.inverse_depth[window].min():
            continue  # hidden by what was met already
        enter, face = _enter(solids, index, part, camera)
        if enter is None:
            continue
        new = enter > hits.inverse_depth[window]
        if cutout is not None and new.any():
            v, u = np.nonzero(new)
            directions = np.stack([part.x[u], part.y[v], np.ones(len(u))], -1) \
                @ grid.world_T_camera[:3, :3].T
            points = camera + directions / enter[v, u][:, None]
            passes = cutout(index, points, directions)
            new[v[passes], u[passes]] = False
        np.copyto(hits.inverse_depth[window], enter, where=new)
        hits.solid[window][new] = index
        np.copyto(hits.face[window], face, where=new)
    return hits


def _windows(solids: Solids, grid: RayGrid) -> list[tuple[int, tuple[int, int, int, int, float]]]:
    """Return (solid, (u0, u1, v0, v1, nearest)) of all that may be seen, nearest first."""
    R, camera = grid.world_T_camera[:3, :3], grid.world_T_camera[:3, 3]
    points = (solids.corners - camera) @ R  # (N, 8, 3) in the camera
    a, b = points[:, _PAIRS[:, 0]], points[:, _PAIRS[:, 1]]
    crosses = (a[..., 2] - NEAR_M) * (b[..., 2] - NEAR_M) < 0
    with np.errstate(divide='ignore', invalid='ignore'):
        cut = a + (b - a) * ((NEAR_M - a[..., 2]) / (b[..., 2] - a[..., 2]))[..., None]
    everything = np.concatenate([points, cut], axis=1)
    seen = np.concatenate([points[..., 2] >= NEAR_M, crosses], axis=1)
    with np.errstate(divide='ignore', invalid='ignore'):
        x = np.where(seen, everything[..., 0] / everything[..., 2], np.nan)
        y = np.where(seen, everything[..., 1] / everything[..., 2], np.nan)
    windows = []
    keep = np.nonzero(seen.any(axis=1))[0]
    edges = np.stack([np.nanmin(x[keep], 1), np.nanmax(x[keep], 1),
                      np.nanmin(y[keep], 1), np.nanmax(y[keep], 1)], axis=1)
    u0, u1 = np.searchsorted(grid.x, edges[:, 0]), np.searchsorted(grid.x, edges[:, 1], 'right')
    v0, v1 = np.searchsorted(grid.y, edges[:, 2]), np.searchsorted(grid.y, edges[:, 3], 'right')
    nearest = points[keep, :, 2].min(axis=1)
    for row in np.argsort(nearest):
        if u0[row] < u1[row] and v0[row] < v1[row]:
            windows.append((int(keep[row]), (u0[row], u1[row], v0[row], v1[row], nearest[row])))
    return windows


def _enter(solids: Solids, index: int, grid: RayGrid, camera: np.ndarray
           ) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the inverse depth where rays enter one solid (0 = miss), and by which face."""
    shape = (len(grid.y), len(grid.x))
    enter = np.full(shape, np.inf)
    leave = np.zeros(shape)
    face = np.full(shape, QUADRIC, np.int8)
    outside = False
    Q = solids.quadric[index]
    if not np.isnan(Q[0, 0]):
        offset = Q @ (camera - solids.origin[index])
        C = offset @ offset - 1.0
        if C > 0:
            outside = True
            A = np.zeros(shape)
            for row in Q:
                if row.any():
                    A += np.square(np.add(*grid.affine(row)))
            B = np.add(*grid.affine(offset @ Q))
            discriminant = B * B - A * C
            root = np.sqrt(np.maximum(discriminant, 0))
            enter = np.where(discriminant > 0, (root - B) / C, -1.0)
            leave = np.maximum(leave, (-B - root) / C)
    for number, plane in enumerate(solids.planes[index]):
        if np.isnan(plane[0]):
            break
        distance = plane[3] - plane[:3] @ camera  # > 0: the camera is on the inner side
        row, column = grid.affine(plane[:3])
        if distance < 0:
            outside = True
            w = row / distance + column / distance
            face[w < enter] = number
            np.minimum(enter, w, out=enter)
        elif distance > 0:
            np.maximum(leave, row / distance + column / distance, out=leave)
    if not outside:
        return None, face
    enter[enter <= leave] = 0
    return enter, face


def normals(solids: Solids, solid: np.ndarray, face: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the outward unit vectors, (n, 3), of hits on ``solid``, ``face`` at ``points``."""
    flat = np.minimum(face, 5)
    result = solids.planes[solid, flat, :3]
    curved = face == QUADRIC
    Q = solids.quadric[solid[curved]]
    offset = points[curved] - solids.origin[solid[curved]]
    gradient = np.einsum('nji,njk,nk->ni', Q, Q, offset)
    result[curved] = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    return result
