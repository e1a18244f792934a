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
Do the poses fit the images? Finds a wrong extrinsic or a swapped frame by the views themselves.

An earlier frame is warped into the present one with the odometry's motion and the depth that the
single image gives, and compared with it (brightness and contrast normalised locally). The error
alone says little, it depends on the scene; so it is set against two others of the same pair: of
not moving at all, and of the motion that suits the images best, which is found by aligning them
(``alignment``). What counts is where between these two the odometry lies, and by how much its
motion differs from the best one.

The depth must not come from matching with the same poses: it would have adapted to them.

Three faults are told apart. 'motion': the odometry's motion is useless for matching. 'direction':
it is of use, but its direction of travel is measurably off. 'scale': only the length of the way is
off, and images and depth alone cannot say whether the odometry's scale is wrong or that of the
single-frame depth (``ScaleFilter`` weighs further cues).

What it finds and what not (thresholds set on KITTI odometry 06 and 01 and on the HoloLens
recording, also with their depth made worse by 20 %): within 0.6 to 1.6 s of motion, swapped axes,
inverted transforms, a camera that is tilted or turned aside by 10 degrees against what the
extrinsic says, a way wrong by a factor of 2 (in a fast curve: 3 s). On the road a tilt of 5
degrees is found as soon; indoors in the hand, and turned aside, 5 degrees are found in a third to
all of the frames, depending on how good depth is. It cannot see a camera rolled about its
direction of travel while driving straight (which changes nothing in the motion), the position of
the camera on a robot that does not turn, an odometry that stands still while the robot moves, or
errors below about 4 degrees or a factor of 1.5; while turning fast it sees gross errors only.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from hybrid_depth.alignment import CLIP, normalised, Template
from hybrid_depth.keyframes import angle_deg
from hybrid_depth.poses import inverse

Verdict = Literal['ok', 'unknown', 'inconsistent']
Fault = Literal['', 'motion', 'direction', 'scale']
_COARSE_STEPS, _FINE_STEPS = 10, 6


@dataclass(frozen=True)
class PoseCheckRules:
    """Every threshold of the check. Errors are of images normalised to a local deviation of 1."""

    window_s: float = 1.0  # medians are taken over so long, ...
    window_min: int = 6  # ... and over so many informative frames at least
    window_max: int = 30
    max_angle_deg: float = 12.0  # between the two views: beyond, they are not compared
    way_angle_deg: float = 8.0  # beyond, noise of the turn hides the direction of travel
    min_points: int = 150  # pixels with texture and depth
    min_gain: float = 0.12  # of the best motion over none: less is too little motion or texture
    max_best_error: float = 0.42  # above, not even the best motion explains the images
    misfit: float = 0.28  # 0 = odometry as good as the best motion, 1 = no better than none;
    # the length of the way left aside
    misfit_ok: float = 0.15  # up to here, the best motion may have made up for errors of depth
    direction_deg: float = 4.0  # of travel, odometry against images; above misfit_ok only
    scale_factor: float = 1.5  # of the length of the way, where it explains more than misfit_ok


@dataclass(frozen=True)
class PoseCheck:
    """What the images say about the poses of one frame, and of the last second."""

    verdict: Verdict  # over the last second of frames that could tell; stays while none can
    frame_verdict: Verdict  # of this frame alone
    error: float  # photometric error with the odometry's motion, about 0.2 to 0.4 when right
    error_unmoved: float  # with no motion
    error_best: float  # with the motion that suits the images best
    misfit: float  # median over the last second; see PoseCheckRules.misfit; NaN = not known
    direction_deg: float  # median angle between odometry's and images' direction of travel; NaN
    scale_ratio: float  # median length of the way, images / odometry; NaN = not known
    fault: Fault  # of the verdict 'inconsistent'; '' = none found
    reason: str  # for people; '' unless the verdict is 'inconsistent'


@dataclass(frozen=True)
class FrameFit:
    """How well the odometry's motion fits one pair of images."""

    error: float
    error_unmoved: float
    error_best: float
    error_rescaled: float  # with the odometry's motion, its way as long as that of the best one
    source_T_target: np.ndarray | None  # (4, 4) the best motion; None = nothing explains the pair
    texture: int  # pixels used


class PoseChecker:
    """Verdict over time; one per camera."""

    def __init__(self, rules: PoseCheckRules | None = None) -> None:
        self._rules = rules or PoseCheckRules()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._window: deque[_Evidence] = deque(maxlen=self._rules.window_max)

    def update(self, target: np.ndarray, source: np.ndarray, source_T_target: np.ndarray,
               depth_m: np.ndarray, rays: np.ndarray, stamp_ns: int) -> PoseCheck:
        """
        Judge one pair of frames and return the verdict.

        ``target``, ``source`` (h, w) uint8 grey; ``source_T_target`` (4, 4) metres, from odometry;
        ``depth_m`` (h, w) of the target from its image alone; ``rays`` (h, w, 2) x/z, y/z of a
        pinhole camera. A pair with little rotation and a baseline of about a twelfth of the depth
        serves best.
        """
        rules = self._rules
        if angle_deg(source_T_target[:3, :3]) > rules.max_angle_deg:
            fit = _no_fit(0)
        else:
            fit = fit_motion(target, source, source_T_target, depth_m, rays, rules)
        evidence = _evidence(fit, source_T_target, stamp_ns, rules)
        if evidence is not None:
            self._window.append(evidence)
            while len(self._window) > rules.window_min \
                    and abs(stamp_ns - self._window[0].stamp_ns) > rules.window_s * 1e9:
                self._window.popleft()
        frame = _Summary.of([] if evidence is None else [evidence])
        recent = _Summary.of(self._window if len(self._window) >= rules.window_min else [])
        fault = recent.fault(rules)
        return PoseCheck(recent.verdict(rules), frame.verdict(rules), fit.error,
                         fit.error_unmoved, fit.error_best, recent.misfit, recent.direction_deg,
                         recent.scale_ratio, fault, recent.reason(rules) if fault else '')


@dataclass(frozen=True)
class _Evidence:
    stamp_ns: int
    misfit: float  # with the way as long as the images say
    misfit_as_given: float  # with the odometry's own length
    turn: np.ndarray  # (3,) degrees: rotation from odometry's to images' direction; NaN = unknown
    log_scale: float  # ln(way by the images / way by odometry); NaN = unknown


@dataclass(frozen=True)
class _Summary:
    """Medians over frames; NaN = not known."""

    misfit: float = np.nan
    misfit_as_given: float = np.nan
    direction_deg: float = np.nan
    scale_ratio: float = np.nan

    @classmethod
    def of(cls, window: Collection[_Evidence]) -> _Summary:
        if not window:
            return cls()
        misfit = float(np.median([entry.misfit for entry in window]))
        as_given = float(np.median([entry.misfit_as_given for entry in window]))
        # an extrinsic is wrong by the same turn in every frame, noise is not
        turn = _median([entry.turn for entry in window])
        scale = _median([np.array([entry.log_scale]) for entry in window])
        return cls(misfit, as_given, float(np.linalg.norm(turn)), float(np.exp(scale[0])))

    def verdict(self, rules: PoseCheckRules) -> Verdict:
        if self.fault(rules):
            return 'inconsistent'
        return 'ok' if self.misfit_as_given <= rules.misfit_ok else 'unknown'  # as is NaN

    def fault(self, rules: PoseCheckRules) -> Fault:
        if self.misfit > rules.misfit:
            return 'motion'
        if self.misfit > rules.misfit_ok and self.direction_deg > rules.direction_deg:
            return 'direction'
        is_off = abs(np.log(self.scale_ratio)) > np.log(rules.scale_factor)
        return 'scale' if is_off and self.misfit_as_given > rules.misfit_ok else ''

    def reason(self, rules: PoseCheckRules) -> str:
        if self.fault(rules) == 'scale':
            return (f'the images say that the camera travels {self.scale_ratio:.2f} times as far '
                    'as the odometry says; check the scale of the odometry, camera_info, and '
                    'whether the scene is like those that the model was trained on')
        direction = '' if np.isnan(self.direction_deg) else \
            f', direction of travel off by {self.direction_deg:.0f} degrees'
        return (f'the images do not move as the odometry says (misfit {self.misfit:.2f}, 0 = '
                f'right, 1 = useless{direction}); check the mounting of the camera (base to '
                'optical frame: degrees and axes), its frame_id, the child frame of the odometry '
                'and the time offset')


def _median(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median of each component where half of the vectors are known, else NaN."""
    known = [vector for vector in vectors if np.isfinite(vector).all()]
    if 2 * len(known) < len(vectors):
        return np.full_like(vectors[0], np.nan)
    return np.median(known, axis=0)


def _evidence(fit: FrameFit, source_T_target: np.ndarray, stamp_ns: int,
              rules: PoseCheckRules) -> _Evidence | None:
    """Return what a pair says, or None where it says nothing."""
    unknown = np.full(3, np.nan)
    if fit.texture < rules.min_points:
        return None
    best = fit.source_T_target
    if best is None:
        if fit.error >= CLIP:  # out of view
            return None
        # even where nothing explains the images well, a right motion is far better than none
        # (by 0.2 and more on the recordings above); one that is better is no proof
        is_useless = fit.error > fit.error_unmoved - rules.min_gain / 2
        misfit = 1.0 if is_useless else (rules.misfit + rules.misfit_ok) / 2
        return _Evidence(stamp_ns, misfit, misfit, unknown, np.nan)
    gain = fit.error_unmoved - fit.error_best
    if gain < rules.min_gain:
        return None
    as_given = (fit.error - fit.error_best) / gain
    misfit = min(as_given, (fit.error_rescaled - fit.error_best) / gain)
    # the camera's way from the source to the target, in the target's axes
    way, seen = -inverse(source_T_target)[:3, 3], -inverse(best)[:3, 3]
    lengths = float(np.linalg.norm(way)), float(np.linalg.norm(seen))
    if min(lengths) < 1e-6 * max(1.0, *lengths):
        return _Evidence(stamp_ns, misfit, as_given, unknown, np.nan)
    log_scale = float(np.log(lengths[1] / lengths[0]))
    if angle_deg(source_T_target[:3, :3]) > rules.way_angle_deg:
        return _Evidence(stamp_ns, misfit, as_given, unknown, log_scale)
    axis = np.cross(way, seen) / (lengths[0] * lengths[1])
    sine, cosine = float(np.linalg.norm(axis)), way @ seen / (lengths[0] * lengths[1])
    turn = axis * (np.degrees(np.arctan2(sine, cosine)) / max(sine, 1e-9))
    return _Evidence(stamp_ns, misfit, as_given, turn, log_scale)


def fit_motion(target: np.ndarray, source: np.ndarray, source_T_target: np.ndarray,
               depth_m: np.ndarray, rays: np.ndarray,
               rules: PoseCheckRules | None = None) -> FrameFit:
    """
    Compare the odometry's motion with none and with the best one; arguments as in ``update``.

    Deterministic, and takes about 2 ms.
    """
    rules = rules or PoseCheckRules()
    fine = Template(target, depth_m, rays)
    if len(fine) < rules.min_points:
        return _no_fit(len(fine))
    normal, unmoved = normalised(source)[0], np.eye(4)
    error, error_unmoved = (fine.error(normal, T) for T in (source_T_target, unmoved))
    half = (target.shape[1] // 2, target.shape[0] // 2)
    small = [cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in (target, source)]
    rows, columns = slice(0, 2 * half[1], 2), slice(0, 2 * half[0], 2)
    coarse = Template(small[0], depth_m[rows, columns],
                      (rays[rows, columns] + rays[1::2, 1::2]) / 2)
    coarse_normal = normalised(small[1])[0]
    best, error_best = source_T_target, error
    starts = sorted(_starts(source_T_target), key=lambda T: coarse.error(coarse_normal, T))
    for start in starts[:2]:
        found = fine.align(normal, coarse.align(coarse_normal, start, _COARSE_STEPS), _FINE_STEPS)
        error_found = fine.error(normal, found)
        if error_found < error_best:
            best, error_best = found, error_found
        if error_best < rules.max_best_error and error_unmoved - error_best > rules.min_gain:
            break
    rescaled = source_T_target.copy()
    rescaled[:3, 3] *= np.linalg.norm(best[:3, 3]) / max(1e-9, np.linalg.norm(rescaled[:3, 3]))
    is_explained = error_best < rules.max_best_error
    return FrameFit(error, error_unmoved, error_best, fine.error(normal, rescaled),
                    best if is_explained else None, len(fine))


def _no_fit(texture: int) -> FrameFit:
    return FrameFit(np.nan, np.nan, np.nan, np.nan, None, texture)


def _starts(source_T_target: np.ndarray) -> list[np.ndarray]:
    """Where to begin: at the odometry's motion, at none, and at the way halved and doubled."""
    halved, doubled = source_T_target.copy(), source_T_target.copy()
    halved[:3, 3] /= 2
    doubled[:3, 3] *= 2
    return [source_T_target, np.eye(4), halved, doubled]
