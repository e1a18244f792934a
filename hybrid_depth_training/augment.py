# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From a recorded sample to what the network is trained on: image, K and truth moved together.

One random zoom, roll, shift, flip and colour change per sample. The geometry is exact: K follows
zoom, shift and flip; roll is about the principal point, where it leaves K and depth alone.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth_training.data import DepthSample


@dataclass(frozen=True)
class AugmentConfig:
    """How far samples are moved; zero everywhere shows them as the robot does."""

    zoom: float = 1.6
    """Largest zoom; the smallest is its inverse to the power of 0.7"""
    roll_deg: float = 2.0
    """Largest roll about the optical axis, either way"""
    flip: float = 0.5
    """Share of samples that are mirrored"""
    grey: float = 0.25
    """Share of samples that lose their colour"""
    jitter: float = 0.3
    """Strength of brightness, contrast, saturation and gamma changes"""


@dataclass(frozen=True)
class View:
    """A sample at network size."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    K: np.ndarray  # (3, 3) float32
    depth_m: np.ndarray  # (H, W) float32; NaN = no truth, +Inf = nothing within range
    is_sparse: bool


NO_AUGMENT = AugmentConfig(zoom=1.0, roll_deg=0.0, flip=0.0, grey=0.0, jitter=0.0)


def make_view(sample: DepthSample, size: tuple[int, int], config: AugmentConfig,
              rng: np.random.Generator) -> View:
    """Show ``sample`` to a network of ``size`` (H, W), changed at random within ``config``."""
    height, width = size
    camera = sample.camera
    fit = min(width / camera.width, height / camera.height)
    scale = fit * config.zoom ** rng.uniform(-0.7, 1.0)
    camera = camera.resized(max(1, round(camera.width * scale)),
                            max(1, round(camera.height * scale)))
    roll = np.deg2rad(rng.uniform(-config.roll_deg, config.roll_deg))
    x = _offset(camera.width - width, config.zoom > 1, rng)
    y = _offset(camera.height - height, config.zoom > 1, rng)
    cos, sin = np.cos(roll), np.sin(roll)
    # rolled = R (pixel - c) + c - (x, y), pixels of the resized image
    move = np.array([[cos, -sin, camera.cx - cos * camera.cx + sin * camera.cy - x],
                     [sin, cos, camera.cy - sin * camera.cx - cos * camera.cy - y]])
    shrinks = scale < 1
    image = cv2.resize(sample.image_rgb, (camera.width, camera.height),
                       interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    image = cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)
    depth = _move_depth(sample, camera, move, size)
    camera = camera.cropped(x, y, width, height)
    K = camera.K.astype(np.float32)
    if rng.random() < config.flip:
        image, depth = image[:, ::-1], depth[:, ::-1]
        K[0, 2] = width - 1 - K[0, 2]
    image = _change_colour(image, config, rng)
    return View(np.ascontiguousarray(image), K, np.ascontiguousarray(depth), sample.is_sparse)


def _offset(excess: int, is_random: bool, rng: np.random.Generator) -> int:
    """Return the crop (positive) or padding (negative) at the left or top."""
    if not is_random:
        # padding is rounded as network_view rounds it
        return -(-excess // 2) if excess < 0 else excess // 2
    return int(rng.integers(min(0, excess), max(0, excess) + 1))


def _move_depth(sample: DepthSample, camera: CameraModel, move: np.ndarray,
                size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if not sample.is_sparse:
        depth = cv2.resize(sample.depth_m, (camera.width, camera.height),
                           interpolation=cv2.INTER_NEAREST_EXACT)
        return cv2.warpAffine(depth, move, (width, height), flags=cv2.INTER_NEAREST,
                              borderMode=cv2.BORDER_CONSTANT, borderValue=float('nan'))
    rows, columns = np.nonzero(~np.isnan(sample.depth_m))
    values = sample.depth_m[rows, columns]
    u = (columns + 0.5) * camera.width / sample.camera.width - 0.5
    v = (rows + 0.5) * camera.height / sample.camera.height - 0.5
    u, v = move[:, :2] @ np.stack([u, v]) + move[:, 2:]
    u, v = np.round(u).astype(int), np.round(v).astype(int)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    # far first, so that where several fall on a pixel the nearest is written last
    order = np.flatnonzero(inside)[np.argsort(-values[inside], kind='stable')]
    depth = np.full(size, np.nan, np.float32)
    depth[v[order], u[order]] = values[order]
    return depth


def _change_colour(image: np.ndarray, config: AugmentConfig,
                   rng: np.random.Generator) -> np.ndarray:
    if config.jitter == 0 and config.grey == 0:
        return image
    x = image.astype(np.float32) / 255
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if rng.random() < config.grey else 1 + config.jitter * rng.uniform(-1, 1)
    x = grey[..., None] + saturation * (x - grey[..., None])
    x = (x - grey.mean()) * (1 + config.jitter * rng.uniform(-1, 1)) + grey.mean()
    x = x * (1 + config.jitter * rng.uniform(-1, 1))
    x *= (1 + config.jitter * rng.uniform(-0.3, 0.3, 3)).astype(np.float32)  # white balance
    x = np.clip(x, 0, 1) ** np.float32(2 ** (config.jitter * rng.uniform(-1, 1)))
    if rng.random() < config.jitter:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.0))
    if rng.random() < config.jitter:
        x = x + rng.normal(0, rng.uniform(0.005, 0.03), x.shape).astype(np.float32)
    return np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)
