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
"""Depth as a picture for people."""
from __future__ import annotations

import cv2
import numpy as np

from hybrid_depth.errors import ConfigError

INVALID_RGB = (0, 0, 0)
FAR_RGB = (211, 211, 211)


def depth_to_rgb(depth_m: np.ndarray, min_m: float = 1.0, max_m: float = 80.0) -> np.ndarray:
    """
    Colour depth (H, W) metres with the TURBO map: red is near, blue is far; (H, W, 3) uint8 RGB.

    The scale is logarithmic from ``min_m`` to ``max_m``: the same colour step is the same factor
    in depth, as it is for the errors of a camera. Outside, the end colours continue; -Inf (too
    near) has the near one. NaN is black, +Inf (beyond range) a light grey, neither of which is in
    the map. Raises ConfigError unless 0 < min_m < max_m.
    """
    if not 0 < min_m < max_m < np.inf:
        raise ConfigError(f'the colour range is {min_m} to {max_m} m; expected 0 < min < max')
    with np.errstate(invalid='ignore', divide='ignore'):
        share = np.log(np.clip(depth_m, min_m, max_m) / max_m) / np.log(min_m / max_m)
    index = np.rint(255 * np.nan_to_num(share)).astype(np.uint8)
    rgb = cv2.cvtColor(cv2.applyColorMap(index, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    rgb[np.isnan(depth_m)] = INVALID_RGB
    rgb[np.isposinf(depth_m)] = FAR_RGB
    return rgb
