# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The project's own drive: a ray-cast street with exact depth, poses and moving objects.

The world has x along the street, y left, z up, metres. The same seed gives the same pixels. Every
moment of a street is rendered from scratch, so frames can be asked for in any order.
"""
from __future__ import annotations

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import DEFAULT_PERIOD_NS, Drive, DriveFrame, FIRST_STAMP_NS, paint
from hybrid_depth.drives.ground import cast_ground, Ground, paint_ground
from hybrid_depth.drives.solids import cast, Hits, join, normals, RayGrid, Solids
from hybrid_depth.drives.street import Light, make_street, Street
from hybrid_depth.drives.texture import fractal

FRAMES = 60
SPEED_MPS = 8.0
SUPERSAMPLING = 2  # per axis, for colour only: depth belongs to the pixel's centre
# optical axes (x right, y down, z forward) seen from a body with x forward, y left, z up
_BODY_R_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_PAINTERS = tuple(paint.MATERIALS.values())


def open_drive(seed: int = 0) -> Drive:
    """Return the synthetic drive of ``seed``: 60 frames of 640x192 at 10 Hz, 48 m of street."""
    camera = CameraModel(640, 192, 370.0, 370.0, 319.0, 92.0)
    street = make_street(seed, FRAMES * SPEED_MPS * DEFAULT_PERIOD_NS * 1e-9)

    def load(index: int) -> DriveFrame:
        time_s = index * DEFAULT_PERIOD_NS * 1e-9
        pose = ego_pose(street, time_s)
        image_rgb, depth_m = render(street, camera, pose, time_s)
        return DriveFrame(f'{index:010d}', FIRST_STAMP_NS + index * DEFAULT_PERIOD_NS, image_rgb,
                          camera, pose, depth_m)

    stamps_ns = tuple(FIRST_STAMP_NS + index * DEFAULT_PERIOD_NS for index in range(FRAMES))
    return Drive(f'synthetic:{seed}', camera, stamps_ns, load, None)


def ego_pose(street: Street, time_s: float, height_m: float = 1.65, pitch: float = 0.0,
             sway: float = 1.0) -> np.ndarray:
    """
    Return world_T_camera (4, 4) of the car at ``time_s``.

    It keeps its lane and, times ``sway``, nods and drifts as a real car does. ``pitch`` (radians)
    looks down where positive.
    """
    x, y, yaw = street.ground.at(SPEED_MPS * time_s,
                                 street.lane_m + sway * 0.12 * np.sin(0.7 * time_s))
    yaw += sway * 0.006 * np.sin(1.3 * time_s)
    pitch += sway * 0.004 * np.sin(5.1 * time_s + 1)
    roll = sway * 0.003 * np.sin(3.7 * time_s + 2)
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    R = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]]) @ \
        np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ \
        np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    pose = np.eye(4)
    pose[:3, :3] = R @ _BODY_R_OPTICAL
    pose[:3, 3] = (x, y, height_m + sway * 0.01 * np.sin(5.1 * time_s))
    return pose


def render_random(seed: int, size: tuple[int, int] = (192, 640), fx: float | None = None,
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Render one view of the street of ``seed``, for training.

    ``size`` is (H, W); the focal length ``fx`` in pixels is drawn at random where it is None, as
    are place, camera height (1.2 to 2.0 m), pitch (2 degrees) and heading. Returns ``image_rgb``
    (H, W, 3) uint8, ``depth_m`` (H, W) float32 along +Z with +Inf for sky, ``K`` (3, 3) float64
    and ``world_T_camera`` (4, 4) float64.
    """
    rng = np.random.default_rng([seed, 23])
    height, width = size
    focal = fx if fx is not None else width * rng.uniform(0.45, 0.95)
    camera = CameraModel(width, height, focal, focal, (width - 1) / 2 + rng.uniform(-6, 6),
                         (height - 1) / 2 + rng.uniform(-0.05, 0.05) * height)
    street = make_street(seed)
    time_s = rng.uniform(0, 6.0)
    pose = ego_pose(street, time_s, rng.uniform(1.2, 2.0), np.radians(rng.uniform(-2, 2)), 1.5)
    turn = rng.normal(0, 0.05)
    pose[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0],
                             [0, 0, 1]]) @ pose[:3, :3]
    image_rgb, depth_m = render(street, camera, pose, time_s)
    return image_rgb, depth_m, camera.K, pose


def render(street: Street, camera: CameraModel, world_T_camera: np.ndarray,
           time_s: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Render the street at ``time_s`` through an undistorted ``camera``.

    Returns ``image_rgb`` (H, W, 3) uint8 and ``depth_m`` (H, W) float32 along +Z of the ray
    through each pixel's centre, +Inf where it meets nothing within a kilometre.
    """
    moving = [mover.at(street.ground, time_s) for mover in street.movers]
    solids = join([street.static, *moving])
    exact = RayGrid(*_rays(camera), world_T_camera)
    hits = _cast_all(street.ground, solids, exact, camera.fx)
    with np.errstate(divide='ignore'):
        depth_m = (1 / hits.inverse_depth).astype(np.float32)
    fine = camera.resized(camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
    grid = RayGrid(*_rays(fine), world_T_camera)
    colour = _shade(street, solids, grid, _cast_all(street.ground, solids, grid, fine.fx), fine)
    colour = cv2.resize(colour.astype(np.float32), (camera.width, camera.height),
                        interpolation=cv2.INTER_AREA)
    return _develop(colour, street, time_s), depth_m


def _rays(camera: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    return ((np.arange(camera.width) - camera.cx) / camera.fx,
            (np.arange(camera.height) - camera.cy) / camera.fy)


def _cast_all(ground: Ground, solids: Solids, grid: RayGrid, fx: float) -> Hits:
    def between_leaves(index: int, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        if solids.material[index] != paint.FOLIAGE or np.isnan(solids.quadric[index, 0, 0]):
            return np.zeros(len(points), bool)
        Q = solids.quadric[index]
        gradient = (points - solids.origin[index]) @ (Q.T @ Q)
        facing = -np.einsum('ni,ni->n', gradient, directions) / (
            np.linalg.norm(gradient, axis=1) * np.linalg.norm(directions, axis=1))
        # the noise is of the leaves themselves, whatever the distance: the outline must not
        # depend on the pixel size, or colour and depth would disagree
        clumps = paint.leaf_noise(points, np.zeros(len(points)))
        return facing < 0.3 + 0.45 * clumps
    return cast(solids, grid, cast_ground(ground, grid), between_leaves)


def _shade(street: Street, solids: Solids, grid: RayGrid, hits: Hits,
           camera: CameraModel) -> np.ndarray:
    """Return linear colour (H, W, 3)."""
    light = street.light
    directions = np.empty((*hits.solid.shape, 3), np.float32)
    for axis, n in enumerate(np.eye(3)):
        directions[..., axis] = np.add(*grid.affine(n))
    colour = _sky(light, directions.reshape(-1, 3)).reshape(directions.shape)
    origin = grid.world_T_camera[:3, 3]
    shadow = _ground_shadow(street, solids, camera, grid.world_T_camera)

    v, u = np.nonzero((hits.solid < 0) & (hits.inverse_depth > 0))
    depth = 1 / hits.inverse_depth[v, u]
    points = origin + directions[v, u] * depth[:, None]
    grazing = np.abs(directions[v, u, 2]) / np.linalg.norm(directions[v, u], axis=1)
    across_m = depth / camera.fx
    albedo = paint_ground(street.ground, points, across_m, across_m / np.maximum(grazing, 2e-3))
    up = np.broadcast_to([0.0, 0.0, 1.0], points.shape)
    colour[v, u] = _lit(light, albedo, up, shadow[v, u], depth)

    v, u = np.nonzero(hits.solid >= 0)
    solid, face, depth = hits.solid[v, u], hits.face[v, u], 1 / hits.inverse_depth[v, u]
    points = origin + directions[v, u] * depth[:, None]
    n = normals(solids, solid, face, points)
    slant = np.abs(np.einsum('ni,ni->n', n, directions[v, u]))
    footprint = depth / camera.fx / np.sqrt(np.clip(slant, 0.05, 1))
    albedo = _solid_colours(solids, solid, face, points, footprint, light.horizon)
    in_shade = _solids_in_shade(solids, light)[solid]
    colour[v, u] = _lit(light, albedo, n, in_shade, depth, points[:, 2])
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
    for a, b in zip(points, following):  # clip at a plane before the camera
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
