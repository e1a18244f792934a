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
Metric scale of the single-frame depth, and how sure it is.

Cues measure one number, the factor that single-frame depth must be multiplied by to be metric:

- ``network``: 1. The network was trained to be metric; how far off it is elsewhere is its sigma.
- ``odometry``: depth matched along the metric camera motion, over single-frame depth.
- ``ground``: known camera height, over the height of the ground plane in single-frame depth.

All is done in ln(scale), where a factor of 2 and one of 1/2 are equally wrong.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
import math

import numpy as np

from hybrid_depth.errors import BadFrame
from hybrid_depth.ground_plane import fit_ground
from hybrid_depth.spread import block_median

NETWORK_SIGMA = 0.15  # of ln(scale) between one scene that was never seen and the next
# what no average over pixels or frames removes
ODOMETRY_COMMON = 0.01  # scale of wheel odometry or GNSS, stamps, rotation leaking into matching
# the road is no plane and the network errs on it in its own way; with stereo depth, the camera of
# KITTI odometry 06 and 01 is found 1.51 to 1.74 m above the ground instead of 1.65
GROUND_COMMON = 0.05
_MIN_WEIGHT = 0.5  # of a match to count as evidence
_DRIFT = 0.03  # of ln(scale) in a second: the network's error changes with what it sees
_GATE = {1: 6.63, 2: 9.21}  # chi-square, 99 %, by degrees of freedom
_MAX_REJECTED_S = 1.0  # a jump that lasts longer is real
_REMEDY = {
    'odometry': 'the scale of the odometry and the extrinsic of the camera',
    'ground': 'camera_height_m and the direction of gravity',
    'network': 'whether the scene is like those that the model was trained on, and camera_info',
}


@dataclass(frozen=True)
class ScaleReport:
    """Metric scale after one frame."""

    scale: float  # factor that the single-frame branch's depth must be multiplied by
    sigma: float  # one standard deviation of ln(scale)
    cues: Mapping[str, tuple[float, float]]  # cue -> (scale, sigma) of this frame
    agrees: bool  # the cues agree within their sigmas, and with the frames before
    reason: str  # for people; '' where they agree


@dataclass(frozen=True)
class _Cue:
    log_scale: float
    variance: float
    common: float  # the part of the variance that all frames share


class ScaleFilter:
    """
    Scale over time: a Kalman filter of ln(scale) with a random walk, in one thread.

    It starts from the network's word. Cues that contradict each other (chi-square, 99 %) are
    reported; where all but one agree, that one is left out, else sigma grows until it covers them
    all. A frame that contradicts the ones before is left out, unless that lasts for a second.
    Without evidence the scale stays and its sigma grows.
    """

    def __init__(self, camera_height_m: float = 0.0) -> None:
        """Take the height of the camera above the ground; 0 = unknown, then no ground cue."""
        self._camera_height_m = camera_height_m
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._log_scale = 0.0
        self._variance = NETWORK_SIGMA**2
        self._has_evidence = False  # so far, only the network's word
        self._stamp_ns: int | None = None
        self._rejected_since_ns: int | None = None

    def update(self, single_depth: np.ndarray, matched_depth: np.ndarray | None,
               match_weight: np.ndarray | None, rays: np.ndarray, stamp_ns: int,
               down_camera: np.ndarray | None = None) -> ScaleReport:
        """
        Take one frame and return the scale after it.

        ``single_depth``, ``matched_depth`` and ``match_weight`` are (h, w) float32 metres and
        weights in 0..1, ``rays`` (h, w, 2) x/z and y/z of the same pixels; ``down_camera`` (3,)
        is the direction of gravity in the optical frame, +y where None. A stamp before the last
        one starts anew. Raises BadFrame (``size_mismatch``) where the maps differ in size.
        """
        _check(single_depth, matched_depth, match_weight, rays)
        self._predict(stamp_ns)
        cues = {'network': _Cue(0.0, NETWORK_SIGMA**2, NETWORK_SIGMA**2)}
        for name, cue in (('odometry', odometry_cue(single_depth, matched_depth, match_weight)),
                          ('ground', self._ground_cue(single_depth, rays, down_camera))):
            if cue is not None:
                cues[name] = cue
        reason = ''
        if len(cues) > 1:
            fused, contradiction = _fuse(cues)
            jump = self._jump(fused, stamp_ns) if self._has_evidence else ''
            reason = '; '.join(text for text in (contradiction, jump) if text)
            if self._rejected_since_ns is None:
                self._correct(fused)
                self._has_evidence = True
        shown = {name: (math.exp(cue.log_scale), math.sqrt(cue.variance))
                 for name, cue in cues.items()}
        return ScaleReport(math.exp(self._log_scale), math.sqrt(self._variance), shown,
                           not reason, reason)

    def _ground_cue(self, single_depth: np.ndarray, rays: np.ndarray,
                    down_camera: np.ndarray | None) -> _Cue | None:
        if not self._camera_height_m:
            return None
        down = np.array([0.0, 1.0, 0.0]) if down_camera is None else \
            down_camera / np.linalg.norm(down_camera)
        ground = fit_ground(single_depth, rays, down)
        if ground is None:
            return None
        return _Cue(math.log(self._camera_height_m / ground.height),
                    ground.sigma**2 + GROUND_COMMON**2, GROUND_COMMON**2)

    def _predict(self, stamp_ns: int) -> None:
        """Let sigma grow by the time since the last frame; the scale itself may go either way."""
        if self._stamp_ns is not None:
            if stamp_ns < self._stamp_ns:
                self.reset()
            else:
                elapsed_s = (stamp_ns - self._stamp_ns) * 1e-9
                # two scenes that have nothing in common differ by two independent errors
                self._variance = min(self._variance + _DRIFT**2 * elapsed_s,
                                     max(self._variance, 2 * NETWORK_SIGMA**2))
        self._stamp_ns = stamp_ns

    def _jump(self, fused: _Cue, stamp_ns: int) -> str:
        """Return why ``fused`` contradicts the frames before; '' where it does not."""
        step = fused.log_scale - self._log_scale
        if step**2 <= _GATE[1] * (fused.variance + self._variance):
            self._rejected_since_ns = None
            return ''
        if self._rejected_since_ns is None:
            self._rejected_since_ns = stamp_ns
        if stamp_ns - self._rejected_since_ns >= _MAX_REJECTED_S * 1e9:
            self._rejected_since_ns = None
            self._log_scale, self._variance = 0.0, 2 * NETWORK_SIGMA**2
            return (f'the scale has changed to {math.exp(fused.log_scale):.2f} for good; the '
                    'former one was given up')
        return (f'the scale of this frame is {math.exp(fused.log_scale):.2f}, that of the frames '
                f'before {math.exp(self._log_scale):.2f}; the frame was left out. If this lasts, '
                'check the odometry for jumps')

    def _correct(self, fused: _Cue) -> None:
        gain = self._variance / (self._variance + fused.variance)
        self._log_scale += gain * (fused.log_scale - self._log_scale)
        # an average over frames does not remove what is wrong with all of them
        self._variance = max((1 - gain) * self._variance, fused.common)


def odometry_cue(single_depth: np.ndarray, matched_depth: np.ndarray | None,
                 match_weight: np.ndarray | None) -> _Cue | None:
    """
    Compare depth matched along metric motion with single-frame depth.

    The weighted median of ln(matched / single) where the match weighs at least 0.5; its sigma is
    the standard error over image blocks, and 1 % that odometry itself may be wrong by. None where
    too little of the image has evidence.
    """
    if matched_depth is None or match_weight is None:
        return None
    with np.errstate(invalid='ignore', divide='ignore'):
        ratio = np.log(matched_depth.astype(np.float64) / single_depth)
        weights = np.where(match_weight >= _MIN_WEIGHT, match_weight, 0.0).astype(np.float64)
    estimate = block_median(ratio, weights)
    if estimate is None:
        return None
    return _Cue(estimate[0], estimate[1]**2 + ODOMETRY_COMMON**2, ODOMETRY_COMMON**2)


def _check(single: np.ndarray, matched: np.ndarray | None, weight: np.ndarray | None,
           rays: np.ndarray) -> None:
    shapes = {name: array.shape for name, array in (
        ('matched_depth', matched), ('match_weight', weight), ('rays', rays[..., 0]))
        if array is not None}
    wrong = {name: shape for name, shape in shapes.items() if shape != single.shape}
    if wrong:
        raise BadFrame('size_mismatch', f'the single-frame depth is {single.shape} but {wrong}; '
                       'scale needs all maps on the same pixels')


def _fuse(cues: Mapping[str, _Cue]) -> tuple[_Cue, str]:
    """
    Combine the cues of one frame; returns what they say together, and what contradicts.

    Measurements that agree are weighted by their variance; the network's word is where the filter
    started from and is not counted again. Of three, the one that both others contradict is left
    out. Where nobody can say who is wrong, the variance between the cues is added to each
    (random effects; DerSimonian and Laird, Controlled Clinical Trials 1986, eq. for tau^2).
    """
    measured = {name: cue for name, cue in cues.items() if name != 'network'}
    if _agree(cues):
        return _mean(measured), ''
    said = ', '.join(f'{name} {math.exp(cue.log_scale):.2f}' for name, cue in cues.items())
    agreeing = [part for part in combinations(cues, len(cues) - 1)
                if len(part) > 1 and _agree({name: cues[name] for name in part})]
    if len(agreeing) == 1:
        (outlier,) = set(cues) - set(agreeing[0])
        kept = {name: cues[name] for name in agreeing[0] if name != 'network'}
        return _mean(kept), (f'the {outlier} cue contradicts the others and is left out (factor '
                             f'by {said}); check {_REMEDY[outlier]}')
    weights = np.array([1 / cue.variance for cue in cues.values()])
    total = weights.sum()
    tau2 = (_chi_square(cues) - (len(cues) - 1)) / (total - (weights**2).sum() / total)
    wide = {name: _Cue(cue.log_scale, cue.variance + tau2, cue.variance + tau2)
            for name, cue in cues.items()}
    check = '; or '.join(_REMEDY[name] for name in measured)
    return _mean(wide), f'the cues contradict each other (factor by {said}); check {check}'


def _mean(cues: Mapping[str, _Cue]) -> _Cue:
    weights = np.array([1 / cue.variance for cue in cues.values()])
    weights /= weights.sum()
    values, variances, commons = np.array([(c.log_scale, c.variance, c.common)
                                           for c in cues.values()]).T
    return _Cue(float(weights @ values), float(weights**2 @ variances),
                float(weights**2 @ commons))


def _agree(cues: Mapping[str, _Cue]) -> bool:
    return _chi_square(cues) <= _GATE[len(cues) - 1]


def _chi_square(cues: Mapping[str, _Cue]) -> float:
    mean = _mean(cues).log_scale
    return sum((cue.log_scale - mean)**2 / cue.variance for cue in cues.values())
