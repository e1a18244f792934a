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
Differentiable view geometry: pixels to points, points to pixels, and one image seen from another.

Frames are camera optical frames: x right, y down, z forward, metres. A pose ``target_T_source``
(B, 4, 4) takes points of the source camera to the target camera. Pixel (0, 0) is the centre of the
top-left pixel, as everywhere in this project, and K (B, 3, 3) belongs to the map it is used with:
``scale_K`` takes it to maps of another stride. Everything is float32: under mixed precision call
these within ``full_precision``, a matrix product in bfloat16 is wrong by whole pixels.
"""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

NEAREST_M = 1e-3  # points nearer than this, or behind the camera, have no pixel


def full_precision(like: torch.Tensor) -> AbstractContextManager[object]:
    """Return a context in which mixed precision is off on the device of ``like``."""
    device = like.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def pixel_grid(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Return homogeneous pixels [u, v, 1], (3, height, width), of the device of ``like``."""
    v, u = torch.meshgrid(torch.arange(height, device=like.device, dtype=like.dtype),
                          torch.arange(width, device=like.device, dtype=like.dtype), indexing='ij')
    return torch.stack([u, v, torch.ones_like(u)])


def scale_K(K: torch.Tensor, stride: float) -> torch.Tensor:
    """
    Return K (B, 3, 3) of a map that is ``stride`` times smaller than the one K belongs to.

    Half-pixel exact, as resizing samples: cx' = (cx + 0.5) / stride - 0.5.
    """
    scaled = K.clone()
    scaled[:, :2] = scaled[:, :2] / stride
    scaled[:, :2, 2] = (K[:, :2, 2] + 0.5) / stride - 0.5
    return scaled


def backproject(depth_m: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """
    Return the points of pixels: X = D(u) K^-1 [u, v, 1].

    ``depth_m`` (B, 1, H, W) metres along +Z. Returns (B, 3, H, W) metres.
    """
    height, width = depth_m.shape[2:]
    rays = torch.linalg.inv(K) @ pixel_grid(height, width, depth_m).view(3, -1)  # (B, 3, H * W)
    return depth_m * rays.view(-1, 3, height, width)


def transform(target_T_source: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Take ``points`` (B, 3, H, W) of the source frame to the target frame, same shape."""
    rotated = torch.einsum('bij,bjhw->bihw', target_T_source[:, :3, :3], points)
    return rotated + target_T_source[:, :3, 3, None, None]


def project(points: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the pixels [u, v] (B, 2, H, W) of ``points`` (B, 3, H, W), and their depth (B, 1, H, W).

    The pixel of a point nearer than NEAREST_M or behind the camera means nothing: look at its
    depth.
    """
    image = torch.einsum('bij,bjhw->bihw', K, points)
    return image[:, :2] / image[:, 2:].clamp(min=NEAREST_M), points[:, 2:]


def sample(image: torch.Tensor, pixels: torch.Tensor, padding: str = 'border') -> torch.Tensor:
    """
    Return ``image`` (B, C, H, W) at ``pixels`` [u, v] (B, 2, h, w): (B, C, h, w), bilinear.

    ``padding`` 'border' repeats the edge, 'zeros' is 0 outside (torch's grid_sample).
    """
    height, width = image.shape[2:]
    size = torch.tensor([width - 1, height - 1], device=image.device, dtype=image.dtype)
    grid = 2 * pixels.permute(0, 2, 3, 1) / size.clamp(min=1) - 1
    return F.grid_sample(image, grid, mode='bilinear', padding_mode=padding, align_corners=True)


def is_inside(pixels: torch.Tensor, depth_m: torch.Tensor, height: int, width: int,
              margin: float = 0.0) -> torch.Tensor:
    """
    Say which ``pixels`` (B, 2, h, w) lie in an image: (B, 1, h, w) bool.

    They do where they are at least ``margin`` pixels from the outermost pixel centres and their
    ``depth_m`` (B, 1, h, w) is in front of the camera.
    """
    u, v = pixels[:, :1], pixels[:, 1:]
    return ((u >= margin) & (u <= width - 1 - margin) & (v >= margin) & (v <= height - 1 - margin)
            & (depth_m > NEAREST_M))


def warp(source: torch.Tensor, depth_m: torch.Tensor, K: torch.Tensor,
         source_T_target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return what the target camera would see of ``source``, and where the source shows it.

    u_s ~ K source_T_target D(u) K^-1 u, sampled bilinearly with the edge repeated: Zhou et al.
    (CVPR 2017), eq. (2). ``source`` (B, C, H, W); ``depth_m`` (B, 1, H, W) is the target's and
    must be finite; K is that of both. Returns (B, C, H, W) and (B, 1, H, W) bool.
    """
    points = transform(source_T_target, backproject(depth_m, K))
    pixels, z = project(points, K)
    inside = is_inside(pixels, z, *source.shape[2:])
    return sample(source, pixels), inside


def rotation_matrix(axis_angle: torch.Tensor) -> torch.Tensor:
    """
    Return R (B, 3, 3) of rotation vectors (B, 3): axis times angle in radians.

    Rodrigues' formula R = I + sin(a)/a [w] + (1 - cos(a))/a^2 [w]^2; at a = 0 both factors and
    their gradients take their limits.
    """
    x, y, z = axis_angle.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    squared = axis_angle.square().sum(dim=1).view(-1, 1, 1)
    is_small = squared < 1e-8
    angle = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    first = torch.where(is_small, 1 - squared / 6, torch.sin(angle) / angle)
    # 2 sin^2(a / 2) = 1 - cos(a) without the cancellation
    second = torch.where(is_small, 0.5 - squared / 24,
                         0.5 * (torch.sin(angle / 2) / (angle / 2)).square())
    identity = torch.eye(3, device=axis_angle.device, dtype=axis_angle.dtype)
    return identity + first * cross + second * (cross @ cross)


def pose_matrix(axis_angle: torch.Tensor, translation: torch.Tensor) -> torch.Tensor:
    """Return [R(axis_angle) | translation] (B, 4, 4) of two (B, 3): rotate first, then move."""
    upper = torch.cat([rotation_matrix(axis_angle), translation[:, :, None]], dim=2)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(upper), 1, 4)
    return torch.cat([upper, last], dim=1)


def inverse_pose(target_T_source: torch.Tensor) -> torch.Tensor:
    """Return ``source_T_target`` (..., 4, 4): [R^T | -R^T t], exact for rigid poses."""
    R_t = target_T_source[..., :3, :3].transpose(-1, -2)
    upper = torch.cat([R_t, -R_t @ target_T_source[..., :3, 3:]], dim=-1)
    return torch.cat([upper, target_T_source[..., 3:, :]], dim=-2)
