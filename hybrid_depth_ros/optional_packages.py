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
"""ROS packages that are used where they are installed and done without where they are not."""
from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
import logging
from typing import Any

import numpy as np

from hybrid_depth.encodings import ENCODINGS
from hybrid_depth.errors import BadFrame
from hybrid_depth_ros.encodings import Fallback

_LOG = logging.getLogger(__name__)

# package -> what is lost without it
OPTIONAL_PACKAGES = {
    'tf2_ros': 'the pose of the camera on the robot comes from the parameters extrinsic.*, not '
               'from TF',
    'grid_map_msgs': '~/bev/elevation is a PointCloud2, one point a cell, not a GridMap',
    'cv_bridge': 'images in encodings other than ' + ', '.join(ENCODINGS) + ' are dropped',
}


@functools.cache
def is_installed(name: str) -> bool:
    """Return whether the row ``name`` of OPTIONAL_PACKAGES can be imported; log a loss once."""
    if find_spec(name) is not None:
        return True
    _LOG.info('%s is not installed: %s', name, OPTIONAL_PACKAGES[name])
    return False


def cv_bridge_fallback() -> Fallback | None:
    """Return a converter for encodings outside our table, None without cv_bridge."""
    if not is_installed('cv_bridge'):
        return None

    def convert(message: Any) -> np.ndarray:
        # imported when first needed: a cv_bridge built for another NumPy fails as it loads
        try:
            module = import_module('cv_bridge')
            image: np.ndarray = module.CvBridge().imgmsg_to_cv2(message, 'rgb8')
        except Exception as error:  # whatever it raises, it could not convert
            raise BadFrame('unknown_encoding', f'image encoding {message.encoding!r}: cv_bridge '
                           f'cannot convert it to rgb8 ({error}); use one of '
                           f'{", ".join(ENCODINGS)}') from error
        return image
    return convert
