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
"""Colour images, 16-bit depth images and text on disk."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.errors import DriveError

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')


def list_images(folder: Path) -> list[Path]:
    """Return the image files of ``folder`` by name. Raises DriveError where two share a stem."""
    paths = sorted(path for path in folder.iterdir()
                   if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.'))
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise DriveError(f'{folder} holds {stems[path.stem].name} and {path.name}, which '
                             'would be the same frame; keep one of them')
        stems[path.stem] = path
    return paths


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file. Raises DriveError where it holds no text."""
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise DriveError(f'{path} is no text in UTF-8 ({error.reason}); save it again') from error


def read_image_rgb(path: Path) -> np.ndarray:
    """Read (H, W, 3) uint8 RGB. Raises DriveError where the file cannot be decoded."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DriveError(f'{path} cannot be read as an image; copy it again')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_depth_png(path: Path, metres_per_unit: float, height: int, width: int) -> np.ndarray:
    """
    Read a 16-bit depth PNG as (height, width) float32 metres, NaN where it has no truth.

    0 and 65535 mean none. Another size than the image's is brought to it by the nearest pixel.
    Raises DriveError where the file cannot be decoded or is not a single 16-bit channel.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise DriveError(f'{path} cannot be read as a depth image; copy it again')
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise DriveError(f'{path} is {raw.dtype} of shape {raw.shape}; expected one channel of '
                         'uint16')
    if raw.shape != (height, width):
        raw = cv2.resize(raw, (width, height), interpolation=cv2.INTER_NEAREST)
    depth_m = raw.astype(np.float32) * np.float32(metres_per_unit)
    depth_m[(raw == 0) | (raw == 65535)] = np.nan
    return depth_m
