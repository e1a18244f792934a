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
Rendering of one moment of the synthetic street: exact depth, and a picture.

Depth belongs to the ray through a pixel's centre. The picture is taken with four more rays a pixel
where these do not all meet the same face; elsewhere the patterns are filtered by themselves.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import paint
from hybrid_depth.drives.ground import cast_ground, Ground, paint_ground
from hybrid_depth.drives.solids import cast, Hits, join, normals, RayGrid, Solids
from hybrid_depth.drives.street import Light, Street
from hybrid_depth.drives.texture import fractal

_PAINTERS = tuple(paint.MATERIALS.values())
_FINE = 2  # finer rays per axis


@dataclass(frozen=True)
class _Samples:
    """Rays and what they meet; directions have z = 1 in the camera."""

    origin: np.ndarray  # (3,) of all rays, in the world
    directions: np.ndarray  # (n, 3) float32, in the world
    inverse_depth: np.ndarray  # (n,) float64
    solid: np.ndarray  # (n,) int32
    face: np.ndarray  # (n,) int8
    shadow: np.ndarray  # (n,) float32, of ground at this pixel
    pixel: np.ndarray  # (n,) float32, what it covers at a depth of 1 m


def render(street: Street, camera: CameraModel, world_T_camera: np.ndarray,
           time_s: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Render the street at ``time_s`` through an undistorted ``camera``.

    Returns ``image_rgb`` (H, W, 3) uint8 and ``depth_m`` (H, W) float32 along +Z of the ray
    through each pixel's centre, +Inf where it meets nothing within a kilometre.
    """
    moving = [mover.at(street.ground, time_s) for mover in street.movers]
    solids = join([street.static, *moving])
    grid = ray_grid(camera, world_T_camera)
    hits = cast_street(street.ground, solids, grid)
    with np.errstate(divide='ignore'):
        depth_m = (1 / hits.inverse_depth).astype(np.float32)
    fine = camera.resized(camera.width * _FINE, camera.height * _FINE)
    fine_grid = ray_grid(fine, world_T_camera)
    fine_hits = cast_street(street.ground, solids, fine_grid)
    shadow = _ground_shadow(street, solids, camera, world_T_camera)

    mixed = _is_mixed(hits, fine_hits)
    colour = np.empty((camera.height, camera.width, 3), np.float32)
    colour[~mixed] = _shade(street, solids, _take(grid, hits, ~mixed, shadow, 1 / camera.fx))
    fine_mixed = _repeat(mixed)
    samples = _take(fine_grid, fine_hits, fine_mixed, _repeat(shadow), 1 / fine.fx)
    fine_colour = np.zeros((fine.height, fine.width, 3), np.float32)
    fine_colour[fine_mixed] = _shade(street, solids, samples)
    mean = cv2.resize(fine_colour, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    colour[mixed] = mean[mixed]
    return _develop(colour, street, time_s), depth_m


def ray_grid(camera: CameraModel, world_T_camera: np.ndarray) -> RayGrid:
    """Return the rays through the pixel centres of an undistorted camera."""
    return RayGrid((np.arange(camera.width) - camera.cx) / camera.fx,
                   (np.arange(camera.height) - camera.cy) / camera.fy, world_T_camera)


def cast_street(ground: Ground, solids: Solids, grid: RayGrid) -> Hits:
    """Return what the rays meet; where that is the ground, ``face`` is its kind."""
    def between_leaves(index: int, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        Q = solids.quadric[index]
        if solids.material[index] != paint.FOLIAGE or np.isnan(Q[0, 0]):
            return np.zeros(len(points), bool)
        gradient = (points - solids.origin[index]) @ (Q.T @ Q)
        facing = -np.einsum('ni,ni->n', gradient, directions) / (
            np.linalg.norm(gradient, axis=1) * np.linalg.norm(directions, axis=1))
        # the noise is of the leaves themselves, whatever the distance: the outline must not
        # depend on the pixel size, or colour and depth would disagree
        clumps = paint.leaf_noise(points, np.zeros(len(points)))
        passes: np.ndarray = facing < 0.45 + 0.9 * clumps
        return passes
    return cast(solids, grid, *cast_ground(ground, grid), between_leaves)


def _repeat(mask: np.ndarray) -> np.ndarray:
    return mask.repeat(_FINE, axis=0).repeat(_FINE, axis=1)


def _is_mixed(hits: Hits, fine: Hits) -> np.ndarray:
    """Say where the finer rays of a pixel do not all meet what its centre meets, (H, W) bool."""
    height, width = hits.solid.shape
    mixed = np.zeros((height, width), bool)
    for row in range(_FINE):
        for column in range(_FINE):
            part = np.s_[row::_FINE, column::_FINE]
            mixed |= (fine.solid[part] != hits.solid) | (fine.face[part] != hits.face) \
                | ((fine.inverse_depth[part] > 0) != (hits.inverse_depth > 0))
    return mixed


def _take(grid: RayGrid, hits: Hits, where: np.ndarray, shadow: np.ndarray,
          pixel: float) -> _Samples:
    v, u = np.nonzero(where)
    directions = np.stack([np.add(row[u], column[v, 0]) for row, column in
                           (grid.affine(axis) for axis in np.eye(3))], axis=1)
    return _Samples(grid.world_T_camera[:3, 3], directions.astype(np.float32),
                    hits.inverse_depth[v, u], hits.solid[v, u], hits.face[v, u], shadow[v, u],
                    np.full(len(v), pixel, np.float32))


def _shade(street: Street, solids: Solids, samples: _Samples) -> np.ndarray:
    """Return linear colour (n, 3) float32."""
    light, origin = street.light, samples.origin.astype(np.float32)
    colour = np.empty(samples.directions.shape, np.float32)
    is_ground = (samples.solid < 0) & (samples.inverse_depth > 0)
    is_solid = samples.solid >= 0
    is_sky = ~is_ground & ~is_solid
    colour[is_sky] = _sky(light, samples.directions[is_sky])

    directions, shadow = samples.directions[is_ground], samples.shadow[is_ground]
    depth = (1 / samples.inverse_depth[is_ground]).astype(np.float32)
    points = origin + directions * depth[:, None]
    grazing = np.abs(directions[:, 2]) / np.linalg.norm(directions, axis=1)
    across_m = depth * samples.pixel[is_ground]
    albedo = paint_ground(street.ground, points, across_m, across_m / np.maximum(grazing, 2e-3))
    up = np.broadcast_to(np.array([0, 0, 1], np.float32), points.shape)
    colour[is_ground] = _lit(light, albedo, up, shadow, depth)

    directions, solid, face = samples.directions[is_solid], samples.solid[is_solid], \
        samples.face[is_solid]
    depth = (1 / samples.inverse_depth[is_solid]).astype(np.float32)
    points = origin + directions * depth[:, None]
    n = normals(solids, solid, face, points)
    slant = np.abs(np.einsum('ni,ni->n', n, directions)) / np.linalg.norm(directions, axis=1)
    footprint = depth * samples.pixel[is_solid] / np.sqrt(np.clip(slant, 0.05, 1))
    albedo = _solid_colours(solids, solid, face, points, footprint.astype(np.float32),
                            light.horizon)
    in_shade = _solids_in_shade(solids, light)[solid]
    colour[is_solid] = _lit(light, albedo, n, in_shade, depth, points[:, 2])
    return colour


def _solid_colours(solids: Solids, solid: np.ndarray, face: np.ndarray, points: np.ndarray,
                   footprint: np.ndarray, sky: np.ndarray) -> np.ndarray:
    albedo = np.empty(points.shape, np.float32)
    material = solids.material[solid]
    for number, painter in enumerate(_PAINTERS):
        rows = np.nonzero(material == number)[0]
        if not len(rows):
            continue
        which = solid[rows]
        local = np.einsum('nji,nj->ni', solids.rotation[which],
                          points[rows] - solids.origin[which])
        albedo[rows] = painter(paint.Surface(
            local.astype(np.float32), points[rows], face[rows], solids.colour[which, 0],
            solids.colour[which, 1], solids.params[which], footprint[rows], sky))
    return albedo


def _lit(light: Light, albedo: np.ndarray, n: np.ndarray, shadow: np.ndarray, depth: np.ndarray,
         height: np.ndarray | None = None) -> np.ndarray:
    sun = np.maximum(n @ light.sun_direction, 0) * (1 - np.minimum(shadow, 1))
    sky = 0.65 + 0.35 * n[:, 2]
    if height is not None:
        sky = sky * (0.7 + 0.3 * np.clip(height / 1.2, 0, 1))  # less sky is seen near the ground
    sky = sky * (1 - 0.75 * np.clip(shadow - 1, 0, 1))
    colour = albedo * (sky[:, None] * light.ambient + sun[:, None] * light.sun)
    haze = 1 - np.exp(-depth / light.haze_m)
    result: np.ndarray = colour + (light.horizon - colour) * haze[:, None]
    return result


def _sky(light: Light, directions: np.ndarray) -> np.ndarray:
    up = directions[:, 2] / np.linalg.norm(directions, axis=1)
    rise = np.clip(up / 0.5, 0, 1)[:, None] ** 0.6
    colour = light.horizon + (light.zenith - light.horizon) * rise
    above = np.nonzero(up > 0.01)[0]
    reach = 1 / (up[above] + 0.08)
    clouds = fractal(directions[above, 0] * reach, directions[above, 1] * reach, 4.0, 5,
                     np.full(len(above), 0.01))
    cover = np.clip((clouds + 1.1 * light.cloud - 0.45) * 2.2, 0, 1) * np.clip(up[above] * 6, 0, 1)
    white = 0.95 - 0.3 * np.clip(clouds, 0, 1)
    colour[above] += (white[:, None] - colour[above]) * cover[:, None] * 0.85
    return colour


def _ground_shadow(street: Street, solids: Solids, camera: CameraModel,
                   world_T_camera: np.ndarray) -> np.ndarray:
    """
    Return the shadow on the ground, (H, W) float32: 0 sunlit, 1 in shadow, 2 under a car.

    The outline of a solid's corners, thrown to the ground along the sun, is filled in the image.
    """
    mask = np.zeros((camera.height, camera.width), np.uint8)
    under = mask.copy()
    near = np.linalg.norm(solids.origin - world_T_camera[:3, 3], axis=1) < 120
    sun = street.light.sun_direction
    if street.light.sun.any():
        for corners in solids.corners[near]:
            _fill(mask, corners - sun * (corners[:, 2:] / sun[2]), camera, world_T_camera)
    dark = np.isin(solids.material, (paint.CAR, paint.CLOTH, paint.BARK))
    for corners in solids.corners[near & dark]:
        if corners[:, 2].min() < 0.4:
            _fill(under, corners * (1, 1, 0), camera, world_T_camera)
    soft = cv2.GaussianBlur(mask, (5, 5), 0).astype(np.float32) / 255
    return soft + cv2.GaussianBlur(under, (9, 5), 0).astype(np.float32) / 255


def _fill(mask: np.ndarray, ground_points: np.ndarray, camera: CameraModel,
          world_T_camera: np.ndarray) -> None:
    hull = cv2.convexHull(ground_points[:, :2].astype(np.float32))[:, 0]
    flat = np.concatenate([hull, np.zeros((len(hull), 1))], axis=1)
    points = (flat - world_T_camera[:3, 3]) @ world_T_camera[:3, :3]
    following = np.roll(points, -1, axis=0)
    kept = []
    for a, b in zip(points, following, strict=True):  # clip at a plane before the camera
        if a[2] > 0.5:
            kept.append(a)
        if (a[2] - 0.5) * (b[2] - 0.5) < 0:
            kept.append(a + (b - a) * (0.5 - a[2]) / (b[2] - a[2]))
    if len(kept) >= 3:
        uvw = np.array(kept) @ camera.K.T
        uv = np.clip(uvw[:, :2] / uvw[:, 2:], -20000, 20000)
        cv2.fillConvexPoly(mask, np.round(uv).astype(np.int32), 255, cv2.LINE_AA)


def _solids_in_shade(solids: Solids, light: Light) -> np.ndarray:
    """Return for each solid 1 where a house stands between it and the sun, (N,)."""
    shade = np.zeros(len(solids))
    houses = np.nonzero(solids.material == paint.FACADE)[0]
    middle = solids.corners.mean(axis=1)
    for house in houses:
        planes = solids.planes[house]
        along = planes[:, :3] @ light.sun_direction
        room = planes[:, 3] - middle @ planes[:, :3].T  # (N, 6), > 0 inside
        with np.errstate(divide='ignore', invalid='ignore'):
            t = room / along
        enter = np.where(along < 0, t, -np.inf).max(axis=1)
        leave = np.where(along > 0, t, np.inf).min(axis=1)
        shade[(enter < leave) & (enter > 0.01)] = 1
    return shade


def _develop(colour: np.ndarray, street: Street, time_s: float) -> np.ndarray:
    """Turn linear colour into an 8-bit picture: exposure, tone curve, vignette, sensor noise."""
    height, width = colour.shape[:2]
    rng = np.random.default_rng([street.seed, 31])
    white_balance = rng.uniform(0.95, 1.05, 3)
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
    vignette = 1 - rng.uniform(0, 0.18) * (x * x + y * y) / 2
    exposed = colour * (street.light.exposure * white_balance) * vignette[..., None]
    toned = np.clip(exposed * (1 + 0.15 * exposed) / (1 + 0.45 * exposed), 0, 1) ** (1 / 2.2)
    grain = np.random.default_rng([street.seed, int(time_s * 1000), 37])
    noisy = toned * 255 + grain.standard_normal(toned.shape, np.float32) * rng.uniform(0.8, 2.5)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)
