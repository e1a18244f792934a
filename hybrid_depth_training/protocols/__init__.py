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
Published evaluation protocols, for predictions and ground truth that lie in two folders.

One row of ``PROTOCOLS`` says everything in which they differ: which truth counts, where in the
image, to what the prediction is clamped, and how depth is stored in the data set's PNG files.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.protocols.crops import (
    Crop,
    eigen_kitti,
    eigen_nyu,
    garg,
    garg_benchmark,
    whole,
)


@dataclass(frozen=True)
class Protocol:
    """How one data set is scored. All depths in metres."""

    truth_above_m: float  # only truth strictly between these counts
    truth_below_m: float
    min_m: float  # the prediction is clamped to these, after scaling
    max_m: float
    crops: Mapping[str, Crop]  # those it knows
    crop: str  # the one it is published with
    png_units_per_m: float
    images: str  # of the published test sets, for people
    source: str


PROTOCOLS: dict[str, Protocol] = {
    'kitti': Protocol(
        1e-3, 80.0, 1e-3, 80.0,
        {'garg': garg, 'garg_352': garg_benchmark, 'eigen': eigen_kitti, 'none': whole}, 'garg',
        256.0, '697 (raw LiDAR) or 652 (improved)',
        'Eigen et al. (NeurIPS 2014) with the crop of Garg et al. (ECCV 2016), as Monodepth2 '
        '(Godard et al., ICCV 2019) and Hybrid-depth (ICCV 2025) evaluate'),
    'kitti_benchmark': Protocol(
        0.0, float('inf'), 1e-3, 80.0, {'none': whole, 'garg': garg, 'eigen': eigen_kitti},
        'none', 256.0, '652 (improved)',
        "Monodepth2's second table: improved truth (Uhrig et al., 3DV 2017), all of it"),
    'nyu': Protocol(
        1e-3, 10.0, 1e-3, 10.0, {'eigen': eigen_nyu, 'none': whole}, 'eigen', 1000.0, '654',
        'Eigen et al. (NeurIPS 2014), as PixelFormer (WACV 2023) and Hybrid-depth evaluate'),
    'sun': Protocol(
        1e-3, 8.0, 1e-3, 8.0, {'none': whole, 'eigen': eigen_nyu}, 'none', 1000.0, '5050',
        'SUN RGB-D (Song et al., CVPR 2015) without training on it, up to 8 m as in the released '
        'configuration of ZoeDepth'),
}


def find_protocol(name: str, crop: str | None = None) -> Protocol:
    """
    Return the row ``name``, with another of its crops where ``crop`` is given.

    Raises ConfigError where there is no such protocol, or it has no such crop.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f'there is no protocol {name!r}; choose one of {", ".join(PROTOCOLS)}')
    protocol = PROTOCOLS[name]
    if crop is None:
        return protocol
    if crop not in protocol.crops:
        raise ConfigError(f'protocol {name} has no crop {crop!r}; choose one of '
                          f'{", ".join(protocol.crops)}')
    return replace(protocol, crop=crop)
