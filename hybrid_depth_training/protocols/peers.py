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
Published figures of other methods, to stand beside measured ones. None was measured here.

Where a figure was only seen in a text about the paper it says 'second hand'. What could not be
found is left empty.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_TABLES = "read in the results tables and READMEs of the methods' repositories"
_METRIC3D = 'read in the comparison of the Metric3D README'
_TRCA = 'read in the TRCA + TBCP paper'
_SELF = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1', 'd2', 'd3')
_INDOOR = ('abs_rel', 'rmse', 'log10', 'd1', 'd2', 'd3')
_SHORT = ('abs_rel', 'rmse', 'd1')


@dataclass(frozen=True)
class Peer:
    """One published row: a protocol, whether it was median-scaled, and its figures."""

    protocol: str
    median_scaling: bool
    method: str
    given: str  # what it is given, or trained on
    figures: Mapping[str, float]
    source: str


def _row(protocol: str, scaled: bool, method: str, given: str, keys: tuple[str, ...],
         values: str, source: str) -> Peer:
    numbers = [float(value) for value in values.split()]
    return Peer(protocol, scaled, method, given, dict(zip(keys, numbers, strict=True)), source)


_KITTI_SELF_SUPERVISED = (  # 697 images, raw LiDAR truth, median-scaled
    ('Monodepth2 R18', '640x192, 1 frame', _SELF, '.115 .903 4.863 .193 .877 .959 .981', _TABLES),
    ('Monodepth2 R18', '1024x320, 1 frame', _SELF, '.115 .882 4.701 .190 .879 .961 .982', _TABLES),
    ('PackNet-SfM', '640x192, 1 frame', _SELF, '.111 .785 4.601 .189 .878 .960 .982', _TABLES),
    ('HR-Depth', '640x192, 1 frame', _SELF, '.109 .792 4.632 .185 .884 .962 .983', _TABLES),
    ('Lite-Mono', '640x192, 1 frame', _SELF, '.107 .765 4.561 .183 .886 .963 .983', _TABLES),
    ('Lite-Mono-8m', '1024x320, 1 frame', _SELF, '.097 .710 4.309 .174 .905 .967 .984', _TABLES),
    ('DIFFNet', '640x192, 1 frame', _SELF, '.102 .764 4.483 .180 .896 .965 .983', _TABLES),
    ('MonoViT', '640x192, 1 frame', ('abs_rel', 'd1'), '.099 .900', _TABLES),
    ('RA-Depth', '640x192, 1 frame', _SELF, '.096 .632 4.216 .171 .903 .968 .985', _TABLES),
    ('ManyDepth', '640x192, 1 frame', ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1'),
     '.118 .892 4.764 .192 .871', 'read in the README of SMDE-Pytorch'),
    ('ManyDepth', '640x192, 2 frames', _SELF, '.098 .770 4.459 .176 .900 .965 .983', _TABLES),
    ('ManyDepth', '1024x320, 2 frames', _SELF, '.093 .715 4.245 .172 .909 .966 .983', _TABLES),
    ('DynamicDepth', '640x192, 2 frames', _SELF, '.096 .720 4.458 .175 .897 .964 .984', _TABLES),
    ('Manydepth2', '640x192, 2 frames', _SELF, '.091 .649 4.232 .170 .909 .968 .984', _TABLES),
    ('Hybrid-depth on Monodepth2', '672x224, 1 frame', ('abs_rel', 'rmse'), '.093 4.113',
     'second hand: a review of the paper'),
    ('Jasmine', 'size not known, 1 frame', ('abs_rel',), '.090',
     'second hand: notes on the paper'),
)

_SUPERVISED = (  # metric, not scaled
    ('kitti', 'PixelFormer', 'trained on KITTI, 1216x352', ('abs_rel', 'rmse'), '.051 2.081',
     'second hand: a leaderboard'),
    ('kitti', 'ZoeDepth', 'fine-tuned on KITTI', _SHORT, '.053 2.281 .971', _METRIC3D),
    ('kitti', 'Depth Anything ViT-L', 'fine-tuned on KITTI', _SHORT, '.046 1.985 .982', _METRIC3D),
    ('kitti', 'Metric3Dv2 L', 'fine-tuned on KITTI', _SHORT, '.044 1.985 .985', _METRIC3D),
    ('kitti', 'Metric3Dv2 g', 'fine-tuned on KITTI', _SHORT, '.039 1.766 .989', _METRIC3D),
    ('nyu', 'PixelFormer', 'trained on NYU', _INDOOR, '.090 .322 .039 .929 .991 .998', _TRCA),
    ('nyu', 'TRCA + TBCP', 'trained on NYU, human captions', _INDOOR,
     '.088 .319 .039 .931 .992 .998', _TRCA),
    ('nyu', 'ZoeDepth', 'fine-tuned on NYU', _SHORT, '.077 .277 .953', _METRIC3D),
    ('nyu', 'Depth Anything ViT-L', 'fine-tuned on NYU', _SHORT, '.056 .206 .984', _METRIC3D),
    ('nyu', 'Metric3Dv2 L', 'fine-tuned on NYU', _SHORT, '.047 .183 .989', _METRIC3D),
    ('nyu', 'Metric3Dv2 g', 'fine-tuned on NYU', _SHORT, '.045 .187 .987', _METRIC3D),
    ('sun', 'PixelFormer', 'trained on NYU', _INDOOR, '.144 .441 .062 .802 .962 .990', _TRCA),
    ('sun', 'TRCA + TBCP', 'trained on NYU, human captions', _INDOOR,
     '.140 .438 .060 .803 .964 .990', _TRCA),
)

PEERS: tuple[Peer, ...] = (
    *(_row('kitti', True, *row) for row in _KITTI_SELF_SUPERVISED),
    *(_row(protocol, False, *row) for protocol, *row in _SUPERVISED))


def peers_of(protocol: str, median_scaling: bool) -> list[Peer]:
    """Return the published rows that were scored in the same way, in the order of ``PEERS``."""
    return [peer for peer in PEERS
            if peer.protocol == protocol and peer.median_scaling == median_scaling]
