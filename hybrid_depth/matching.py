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
"""What a graph of kind 'posed' is fed, and the small pictures that its frame is judged by."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.keyframes import Source
from hybrid_depth.preprocess import NetworkView

_UPRIGHT_COSINE = 0.26  # 75 degrees


def source_inputs(spec: ModelSpec, sources: Sequence[Source]) -> dict[str, Any]:
    """
    Return the graph's inputs for up to ``spec.sources`` sources; {} for kind 'single_frame'.

    What is missing is not valid, with the identity for its motion.
    """
    if spec.kind != 'posed':
        return {}
    missing = spec.sources - len(sources)
    motions = [source.source_T_target for source in sources] + [np.eye(4)] * missing
    return {
        'source_features': (*(source.keyframe.features for source in sources), *[None] * missing),
        'source_T_target': np.stack(motions).astype(np.float32)[None],
        'source_valid': np.array([[1] * len(sources) + [0] * missing], np.float32),
    }


def small_rays(view: NetworkView, stride: int) -> np.ndarray:
    """Return x/z and y/z of each block of ``stride`` network pixels, (h, w, 2) float32."""
    padded = view.content.cropped(-view.left, -view.top, view.width, view.height)
    return padded.resized(view.width // stride, view.height // stride).rays()


def small_map(array: np.ndarray, stride: int) -> np.ndarray:
    """Take from (H, W) one pixel of each block of ``stride``: depths do not mix at edges."""
    middle = stride // 2
    return array[middle::stride, middle::stride]


def thumbnail(image_rgb: np.ndarray, stride: int) -> np.ndarray:
    """Shrink (H, W, 3) uint8 by ``stride`` to grey (h, w) uint8."""
    size = (image_rgb.shape[1] // stride, image_rgb.shape[0] // stride)
    return cv2.resize(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), size,
                      interpolation=cv2.INTER_AREA)


def gravity(odom_T_camera: np.ndarray | None) -> np.ndarray | None:
    """
    Return the direction of gravity in the optical frame, (3,), or None = not known.

    In ROS, z of odom points up (REP-105). Where that would have the camera lie on its side or
    upside down, the world is one of another kind (such as a camera's first pose): None.
    """
    if odom_T_camera is None:
        return None
    down = -odom_T_camera[2, :3]
    return down if down[1] > _UPRIGHT_COSINE else None
