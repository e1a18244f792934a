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
What each pixel's depth rests on, as a map of ``Evidence``.

Geometry says where the earlier frames can tell nothing: out of their view, hidden behind something
nearer, or moved too little in the image by the camera's motion. Elsewhere the model's own weight
says whether matching was used; where matching and the single image disagree, and more so than all
around, the thing most likely moves by itself.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import functools

import cv2
import numpy as np

from hybrid_depth.preprocess import camera_to_content, NetworkView
from hybrid_depth.types import Evidence

_SPECK = np.ones((2, 2), np.uint8)  # feature pixels; what is smaller is noise and nothing moving


@dataclass(frozen=True)
class EvidenceRules:
    """Every threshold of the map."""

    min_parallax_px: float = 0.5  # feature pixels; less cannot be told from noise
    hidden_ratio: float = 1.1  # farther than what is before it by this factor is hidden
    strong_weight: float = 0.5  # of matching, from which on it carries the result
    moving_sigmas: float = 2.0  # of the disagreement between matching and the single image ...
    moving_ratio: float = 1.25  # ... which is at least this factor


def evidence_map(single_depth: np.ndarray, matched_depth: np.ndarray, match_weight: np.ndarray,
                 relative_sigma: np.ndarray, source_T_target: Sequence[np.ndarray],
                 rays: np.ndarray, rules: EvidenceRules | None = None) -> np.ndarray:
    """
    Return the (h, w) uint8 map of ``Evidence`` at feature resolution.

    ``single_depth`` (metric, hence already multiplied by the scale), ``matched_depth`` metres,
    ``match_weight`` 0 to 1 and ``relative_sigma`` (sigma / depth) are (h, w) float32; one
    ``source_T_target`` (4, 4) for each valid source; ``rays`` (h, w, 2) x/z, y/z of a pinhole
    camera. Without a source all is SINGLE_FRAME.
    """
    rules = rules or EvidenceRules()
    result = np.full(single_depth.shape, Evidence.SINGLE_FRAME, np.uint8)
    if not source_T_target:
        return result
    is_strong = match_weight >= rules.strong_weight
    depth = np.where(is_strong, matched_depth, single_depth)
    seen = np.zeros(depth.shape, bool)
    measurable = np.zeros(depth.shape, bool)
    for motion in source_T_target:
        sees, parallax = _view(depth, motion.astype(np.float32), rays, rules.hidden_ratio)
        seen |= sees
        measurable |= sees & (parallax >= rules.min_parallax_px)
    # both depths are taken to be as uncertain as the result; sigmas add in squares
    moves = _disagreement(single_depth, matched_depth, is_strong) > np.maximum(
        rules.moving_sigmas * np.sqrt(2) * relative_sigma, np.log(rules.moving_ratio))
    moves = cv2.morphologyEx((is_strong & moves).astype(np.uint8), cv2.MORPH_OPEN, _SPECK) > 0
    result[is_strong] = Evidence.MATCHED
    result[moves] = Evidence.MOVING
    result[~measurable] = Evidence.EPIPOLE
    result[~seen] = Evidence.OCCLUDED
    return result


def _disagreement(single_depth: np.ndarray, matched_depth: np.ndarray,
                  is_strong: np.ndarray) -> np.ndarray:
    """
    Return how far matching is from the single image, in log depth, beyond what all around is.

    A single image that has a whole region too far or too near is wrong about the region, which
    does not make it move.
    """
    with np.errstate(all='ignore'):
        offset = np.log(matched_depth / single_depth)
    counts = (is_strong & np.isfinite(offset)).astype(np.float32)
    offset = np.where(counts > 0, offset, np.float32(0))
    height, width = offset.shape
    region = (width // 4 | 1, height // 2 | 1)
    around = cv2.boxFilter(offset, -1, region, normalize=False, borderType=cv2.BORDER_CONSTANT)
    count = cv2.boxFilter(counts, -1, region, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.abs(offset - around / np.maximum(count, 1))


def _view(depth: np.ndarray, source_T_target: np.ndarray, rays: np.ndarray,
          hidden_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the source sees each pixel's point, and its parallax in feature pixels."""
    height, width = depth.shape
    R, t = source_T_target[:3, :3], source_T_target[:3, 3]
    focal_u = (width - 1) / (rays[0, -1, 0] - rays[0, 0, 0])
    focal_v = (height - 1) / (rays[-1, 0, 1] - rays[0, 0, 1])
    # the ray turned into the source; far points land where it points
    x, y, z = (rays[..., 0] * row[0] + (rays[..., 1] * row[1] + row[2]) for row in R)
    source_z = depth * z + t[2]
    with np.errstate(all='ignore'):
        source_x, source_y = (depth * x + t[0]) / source_z, (depth * y + t[1]) / source_z
        parallax = np.hypot((source_x - x / z) * focal_u, (source_y - y / z) * focal_v)
        u = np.rint((source_x - rays[0, 0, 0]) * focal_u)
        v = np.rint((source_y - rays[0, 0, 1]) * focal_v)
        sees = (source_z > 0) & (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    # z-buffer at half resolution: coarser, but without the holes that single pixels leave
    half_width = (width + 1) // 2
    cell = v[sees].astype(np.intp) // 2 * half_width + u[sees].astype(np.intp) // 2
    nearest = np.full((height + 1) // 2 * half_width, np.inf, np.float32)
    np.minimum.at(nearest, cell, source_z[sees])
    # ground fills a cell with several depths: what is just above or below here hides nothing there
    beside = cv2.erode(np.where(sees, source_z, np.float32(np.inf)), np.ones((7, 3), np.uint8))
    before = nearest[cell]
    sees[sees] = (source_z[sees] <= before * np.float32(hidden_ratio)) | (beside[sees] <= before)
    return sees, parallax


def on_output(evidence: np.ndarray, view: NetworkView, resolution: str,
              stride: int) -> np.ndarray:
    """
    Bring a (h, w) map from feature resolution onto the output's pixels, nearest.

    ``resolution`` as in PipelineConfig; ``stride`` network pixels per feature pixel. What the
    network does not see is SINGLE_FRAME.
    """
    if resolution == 'camera' and view.camera.is_distorted:
        flat, outside = _distorted_index(view, stride)
        result = evidence.ravel().take(flat)
        result[outside] = Evidence.SINGLE_FRAME
        return result
    rows, columns = _index(view, resolution, stride)
    return evidence.take(columns, axis=1).take(rows, axis=0)


@functools.lru_cache(maxsize=4)
def _index(view: NetworkView, resolution: str, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the feature row of each output row and the feature column of each column."""
    content = view.content
    camera = view.camera if resolution == 'camera' else content
    u = (np.arange(camera.width) + 0.5) * (content.width / camera.width)
    v = (np.arange(camera.height) + 0.5) * (content.height / camera.height)
    return ((np.floor(v).astype(np.intp) + view.top) // stride,
            (np.floor(u).astype(np.intp) + view.left) // stride)


@functools.lru_cache(maxsize=2)
def _distorted_index(view: NetworkView, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat feature index of each camera pixel, and where the network has none."""
    maps = camera_to_content(view)
    outside = np.isnan(maps[0]) | np.isnan(maps[1])
    columns, rows = (
        np.clip(np.floor(np.where(outside, 0, array) + 0.5), 0, length - 1).astype(np.intp)
        for array, length in zip(maps, (view.content.width, view.content.height), strict=True))
    return ((rows + view.top) // stride * (view.width // stride)
            + (columns + view.left) // stride), outside
