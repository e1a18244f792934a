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
"""The lens test: metric depth must not change when the same drive is cropped or resized."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from hybrid_depth.drives import Drive, DriveFrame
from hybrid_depth_training.evaluation.predictors import Entry, MAX_M

# share of the width and height that is kept, and the factor that the image is then resized by
ZOOMS = ((0.6, 1.0), (0.7, 1.0), (0.8, 1.0), (0.9, 1.0), (1.0, 0.6), (1.0, 1.3), (1.0, 1.6))
_CLIPS = 4  # places of the drive
_CLIP_FRAMES = 3  # consecutive frames at each, the last of which is compared


def focal_ratios(entry: Entry, drive: Drive, frames: Sequence[int]) -> list[dict[str, float]]:
    """
    Return, for every zoom, depth over that of the untouched image: the median on common pixels.

    The camera moves along with the pixels, so 1 is what metric depth should give. Four places of
    the drive, three consecutive frames at each, so that methods that remember have something to.
    """
    ends = np.linspace(max(frames[0], _CLIP_FRAMES - 1), frames[-1], _CLIPS).astype(int)
    whole = _clip_depths(entry, drive, ends, 1.0, 1.0)
    rows = []
    for crop, resize in ZOOMS:
        ratios = []
        for depth, reference in zip(_clip_depths(entry, drive, ends, crop, resize), whole,
                                    strict=True):
            both = np.isfinite(depth) & np.isfinite(reference) & (reference < MAX_M)
            if both.any():
                ratios.append(np.median(depth[both] / reference[both]))
        if ratios:
            rows.append({'crop': crop, 'resize': resize, 'scale_ratio': float(np.median(ratios))})
    return rows


def zoomed(frame: DriveFrame, crop: float, resize: float) -> DriveFrame:
    """Return the middle ``crop`` of the image, resized by ``resize``, with its camera."""
    camera, window = frame.camera, _window(frame, crop)
    image = frame.image_rgb[window]
    camera = camera.cropped(window[1].start, window[0].start, image.shape[1], image.shape[0])
    if resize != 1.0:
        camera = camera.resized(round(image.shape[1] * resize), round(image.shape[0] * resize))
        image = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA
                           if resize < 1 else cv2.INTER_LINEAR)
    return replace(frame, image_rgb=np.ascontiguousarray(image), camera=camera, depth_m=None)


def _clip_depths(entry: Entry, drive: Drive, ends: np.ndarray, crop: float,
                 resize: float) -> list[np.ndarray]:
    """Return the depth at the end of each clip on the pixels of the whole image, NaN = none."""
    depths = []
    with entry.start() as predict:
        for end in ends:
            for index in range(end - _CLIP_FRAMES + 1, end + 1):
                frame = drive.frame(index)
                ((depth_m, _),) = predict(zoomed(frame, crop, resize))
            window = _window(frame, crop)
            size = (window[1].stop - window[1].start, window[0].stop - window[0].start)
            whole = np.full(frame.image_rgb.shape[:2], np.nan, np.float32)
            whole[window] = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)
            depths.append(whole)
    return depths


def _window(frame: DriveFrame, crop: float) -> tuple[slice, slice]:
    height, width = (round(size * crop) for size in frame.image_rgb.shape[:2])
    y, x = (frame.image_rgb.shape[0] - height) // 2, (frame.image_rgb.shape[1] - width) // 2
    return slice(y, y + height), slice(x, x + width)
