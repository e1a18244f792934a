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
From a recorded sample to what the network is trained on: image, K and truth moved together.

One random zoom, roll, shift, flip and colour change per sample, the same for the image and its
sources. The geometry is exact: K follows zoom, shift and flip; roll is about the principal point,
where it leaves K and depth alone; the motion between the views follows roll and flip.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import ConfigError
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
    hue: float = 0.0
    """Largest shift of hue either way, as a share of the colour circle"""
    coloured: float = 1.0
    """Share of samples whose colours are changed at all"""


@dataclass(frozen=True)
class View:
    """A sample at network size, with S >= 0 source images of the same camera and crop."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    image_plain: np.ndarray  # the same before colours were changed
    K: np.ndarray  # (3, 3) float32
    depth_m: np.ndarray  # (H, W) float32; NaN = no truth, +Inf = nothing within range
    is_sparse: bool
    source_image: np.ndarray  # (S, H, W, 3) uint8; zero where there is no source
    source_plain: np.ndarray
    source_T_target: np.ndarray  # (S, 4, 4) float32 metres; identity where unknown
    source_valid: np.ndarray  # (S,) float32, 1 = there is an image
    source_posed: np.ndarray  # (S,) float32, 1 = and its pose is known
    caption: str = ''


NO_AUGMENT = AugmentConfig(zoom=1.0, roll_deg=0.0, flip=0.0, grey=0.0, jitter=0.0)


def make_view(sample: DepthSample, size: tuple[int, int], config: AugmentConfig,
              rng: np.random.Generator, sources: Sequence[DepthSample | None] = ()) -> View:
    """
    Show ``sample`` to a network of ``size`` (H, W), changed at random within ``config``.

    ``sources`` are other frames of its recording, None where there is none. Raises ConfigError
    where a source's image has another size or camera than the sample's.
    """
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
    flip = rng.random() < config.flip
    colours = _draw_colours(config, rng)

    def plain(image_rgb: np.ndarray) -> np.ndarray:
        # By areas, not as on the robot, whose faster way (preprocess.resized) aliases a little:
        # depth does not mind, but photometric losses at a sixth of the size then did not learn.
        image = cv2.resize(image_rgb, (camera.width, camera.height),
                           interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        image = cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_LINEAR,
                               borderMode=cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(image[:, ::-1] if flip else image)

    depth = _move_depth(sample, camera, move, size)
    K = camera.cropped(x, y, width, height).K.astype(np.float32)
    if flip:
        depth = np.ascontiguousarray(depth[:, ::-1])
        K[0, 2] = width - 1 - K[0, 2]
    moved_T_camera = np.eye(4)
    moved_T_camera[:2, :2] = (cos, -sin), (sin, cos)
    if flip:
        moved_T_camera[0] *= -1
    count = len(sources)
    source_plain = np.zeros((count, height, width, 3), np.uint8)
    source_image = np.zeros_like(source_plain)
    source_T_target = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    valid, posed = np.zeros(count, np.float32), np.zeros(count, np.float32)
    for index, source in enumerate(sources):
        if source is None:
            continue
        if source.camera != sample.camera:
            raise ConfigError(f'{source.name} has another camera than {sample.name}; a recording '
                              'has one camera')
        source_plain[index] = plain(source.image_rgb)
        source_image[index] = _change_colours(source_plain[index], colours, rng)
        valid[index] = 1
        if source.world_T_camera is not None and sample.world_T_camera is not None:
            motion = np.linalg.inv(source.world_T_camera) @ sample.world_T_camera
            source_T_target[index] = moved_T_camera @ motion @ np.linalg.inv(moved_T_camera)
            posed[index] = 1
    image = plain(sample.image_rgb)
    return View(_change_colours(image, colours, rng), image, K, depth, sample.is_sparse,
                source_image, source_plain, source_T_target, valid, posed, sample.caption)


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


@dataclass(frozen=True)
class _Colours:
    """One change of colours, applied alike to an image and its sources."""

    saturation: float
    contrast: float
    gain: np.ndarray  # (3,) brightness and white balance
    gamma: float
    blur: float  # standard deviation, pixels; 0 = none
    noise: float  # standard deviation on 0..1; 0 = none
    hue: float  # shift as a share of the colour circle


def _draw_colours(config: AugmentConfig, rng: np.random.Generator) -> _Colours | None:
    if config.jitter == 0 and config.grey == 0 and config.hue == 0:
        return None
    if config.coloured < 1 and rng.random() >= config.coloured:
        return None
    jitter = config.jitter
    return _Colours(
        saturation=0.0 if rng.random() < config.grey else 1 + jitter * rng.uniform(-1, 1),
        contrast=1 + jitter * rng.uniform(-1, 1),
        gain=((1 + jitter * rng.uniform(-1, 1)) * (1 + jitter * rng.uniform(-0.3, 0.3, 3))),
        gamma=2 ** (jitter * rng.uniform(-1, 1)),
        blur=rng.uniform(0.3, 1.0) if rng.random() < jitter else 0.0,
        noise=rng.uniform(0.005, 0.03) if rng.random() < jitter else 0.0,
        hue=config.hue * rng.uniform(-1, 1) if config.hue else 0.0)


def _change_colours(image: np.ndarray, colours: _Colours | None,
                    rng: np.random.Generator) -> np.ndarray:
    if colours is None:
        return image
    x = image.astype(np.float32) / 255
    if colours.hue:
        x = _turn_hue(x, colours.hue)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    x = grey[..., None] + np.float32(colours.saturation) * (x - grey[..., None])
    x = (x - grey.mean()) * np.float32(colours.contrast) + grey.mean()
    x = np.clip(x * colours.gain.astype(np.float32), 0, 1) ** np.float32(colours.gamma)
    if colours.blur:
        x = cv2.GaussianBlur(x, (0, 0), colours.blur)
    if colours.noise:
        x = x + rng.standard_normal(x.shape, np.float32) * np.float32(colours.noise)
    return np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)


def _turn_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the colours of (H, W, 3) float32 RGB by ``shift`` of the colour circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue in degrees for float images
    hsv[..., 0] = (hsv[..., 0] + 360 * shift) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
