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
Which rows and columns of a ground-truth image are scored.

Every crop takes the height and width of the truth in pixels and returns its slices of rows and
columns. Fractions are cut to whole pixels towards zero, as the published evaluations do.
"""
from __future__ import annotations

from collections.abc import Callable

from hybrid_depth.errors import BadFrame

Crop = Callable[[int, int], tuple[slice, slice]]


def garg(height: int, width: int) -> tuple[slice, slice]:
    """Return the crop of Garg et al. (ECCV 2016) for KITTI: no sky, no bonnet, no side edges."""
    return (slice(int(0.40810811 * height), int(0.99189189 * height)),
            slice(int(0.03594771 * width), int(0.96405229 * width)))


def garg_benchmark(height: int, width: int) -> tuple[slice, slice]:
    """
    Return Garg's fractions of the lower middle 352x1216 of a KITTI image.

    So BTS, NeWCRFs and PixelFormer score, whose networks see no more of it. Raises BadFrame where
    the image is smaller.
    """
    top, left = height - 352, (width - 1216) // 2
    if top < 0 or left < 0:
        raise BadFrame('size_mismatch', f'the truth is {height} x {width} and this crop is of '
                       'images of 352 x 1216 and more; give the original size, or --crop garg')
    rows, columns = garg(352, 1216)
    return (slice(top + rows.start, top + rows.stop),
            slice(left + columns.start, left + columns.stop))


def eigen_kitti(height: int, width: int) -> tuple[slice, slice]:
    """Return the crop of Eigen et al. (NeurIPS 2014) for KITTI, in Monodepth's fractions."""
    return (slice(int(0.3324324 * height), int(0.91351351 * height)),
            slice(int(0.0359477 * width), int(0.96405229 * width)))


def eigen_nyu(height: int, width: int) -> tuple[slice, slice]:
    """
    Return the crop of Eigen et al. (NeurIPS 2014) for NYU: rows 45 to 470, columns 41 to 600.

    Raises BadFrame where the image is not 480 x 640, which these numbers are of.
    """
    if (height, width) != (480, 640):
        raise BadFrame('size_mismatch', f'the truth is {height} x {width} and the Eigen crop of '
                       'NYU is of 480 x 640 images; give the original size, or --crop none')
    return slice(45, 471), slice(41, 601)


def whole(height: int, width: int) -> tuple[slice, slice]:
    """Leave nothing out."""
    return slice(0, height), slice(0, width)
