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
"""The figures of one image under a protocol, and their average over images."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from hybrid_depth.errors import BadFrame
from hybrid_depth.metrics import depth_metrics
from hybrid_depth_training.protocols import Protocol

MEASURES = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'd1', 'd2', 'd3')
LEVELS = tuple(level / 20 for level in range(1, 20))  # confidence levels of the calibration error


@dataclass(frozen=True)
class Aligned:
    """A prediction as it is scored: resized, scaled, clamped. Maps are (H, W) float64 metres."""

    depth_m: np.ndarray  # NaN = no prediction
    truth_m: np.ndarray  # NaN where it does not count
    sigma_m: np.ndarray | None
    scale: float  # median truth / median prediction, whether applied or not


@dataclass(frozen=True)
class ImageScore:
    """What one image gives."""

    figures: dict[str, float]  # MEASURES and coverage
    scale: float
    pixels: int  # scored
    within: tuple[float, ...] | None  # share of errors within 1 sigma, then within each of LEVELS


def align(pred_m: np.ndarray, truth_m: np.ndarray, protocol: Protocol, median_scaling: bool,
          sigma_m: np.ndarray | None = None) -> Aligned:
    """
    Bring a prediction (h, w) and its truth (H, W), both metres, to what ``protocol`` compares.

    The truth counts in the protocol's range and crop. A prediction of another size is resized to
    the truth's, linearly in inverse depth. Under ``median_scaling`` it is multiplied by median
    truth / median prediction over the pixels that count (sigma with it), then it is clamped, so
    that +Inf is scored as the farthest and -Inf as the nearest depth. NaN is no prediction.
    ``sigma_m`` (h, w) is one standard deviation.

    Raises BadFrame where no truth counts, where none of it has a prediction, or where the scale is
    no positive number.
    """
    height, width = truth_m.shape
    counts = np.zeros(truth_m.shape, bool)
    counts[protocol.crops[protocol.crop](height, width)] = True
    counts &= (truth_m > protocol.truth_above_m) & (truth_m < protocol.truth_below_m)
    if not counts.any():
        raise BadFrame('no_truth', 'no pixel of the truth lies between '
                       f'{protocol.truth_above_m:g} and {protocol.truth_below_m:g} m within the '
                       f'crop {protocol.crop}; check the unit of the truth (--gt_scale)')
    truth_m = np.where(counts, truth_m.astype(np.float64), np.nan)
    depth_m = resized(pred_m, height, width).astype(np.float64)
    used = counts & ~np.isnan(depth_m)
    if not used.any():
        raise BadFrame('no_prediction', 'there is no prediction where there is truth; a depth of '
                       'NaN, and 0 in a PNG, is none')
    median = float(np.median(depth_m[used]))
    if not 0 < median < np.inf:
        raise BadFrame('bad_scale', f'the median of the prediction is {median:g} m where there is '
                       'truth; expected a positive depth')
    scale = float(np.median(truth_m[used])) / median
    if sigma_m is not None:
        if sigma_m.shape != pred_m.shape:
            raise BadFrame('size_mismatch', f'sigma is {sigma_m.shape}, its depth {pred_m.shape}; '
                           'expected the same')
        sigma_m = _linearly(sigma_m, height, width).astype(np.float64)
    if median_scaling:
        depth_m = depth_m * scale
        sigma_m = None if sigma_m is None else sigma_m * scale
    return Aligned(np.clip(depth_m, protocol.min_m, protocol.max_m), truth_m, sigma_m, scale)


def score(aligned: Aligned) -> ImageScore:
    """Return the figures of one image. Raises BadFrame where no value of its sigma counts."""
    used = ~np.isnan(aligned.truth_m) & ~np.isnan(aligned.depth_m)
    truths = aligned.truth_m[used]
    figures = depth_metrics(aligned.depth_m, aligned.truth_m, max_m=float('inf'),
                            min_m=min(float(truths.min()), float(aligned.depth_m[used].min())))
    within = None if aligned.sigma_m is None else _within(aligned)
    return ImageScore(figures, aligned.scale, truths.size, within)


def resized(depth_m: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring (h, w) depth to (height, width), linearly in inverse depth; NaN spreads."""
    if depth_m.shape == (height, width):
        return depth_m
    with np.errstate(divide='ignore'):
        return 1 / _linearly(1 / depth_m.astype(np.float32), height, width)


def _linearly(values: np.ndarray, height: int, width: int) -> np.ndarray:
    if values.shape == (height, width):
        return values
    return cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def _within(aligned: Aligned) -> tuple[float, ...]:
    error = np.abs(aligned.depth_m - aligned.truth_m)
    used = np.isfinite(error) & np.isfinite(aligned.sigma_m) & (aligned.sigma_m >= 0)
    if not used.any():
        raise BadFrame('no_sigma', 'sigma has no value where there are truth and prediction')
    widths = (1.0, *(NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS))
    return tuple(float(np.mean(error[used] <= width * aligned.sigma_m[used])) for width in widths)


def average(scores: Sequence[ImageScore]) -> dict[str, float | int | None]:
    """
    Average per-image figures over images.

    - MEASURES and ``coverage``, the share of the truth that has a prediction: means;
    - ``scale_median``, and ``scale_std``, the standard deviation over that median, of the images'
      median truth / median prediction, whether the figures are scaled by it or not;
    - ``within_1_sigma``: share of the errors within one sigma, 0.683 where sigma is right and the
      errors are normal; ``calibration_error``: mean over LEVELS p of |share of the errors within
      the central interval of probability p of a normal distribution - p|, the calibration error
      of Kuleshov et al. (ICML 2018) with the distance in place of its square. None unless every
      image has sigma.
    """
    result: dict[str, float | int | None] = {
        key: float(np.mean([s.figures[key] for s in scores])) for key in (*MEASURES, 'coverage')}
    scales = np.array([s.scale for s in scores])
    result['scale_median'] = float(np.median(scales))
    result['scale_std'] = float(np.std(scales / np.median(scales)))
    result['within_1_sigma'] = result['calibration_error'] = None
    within = [s.within for s in scores if s.within is not None]
    if len(within) == len(scores):
        shares = np.mean(within, axis=0)
        result['within_1_sigma'] = float(shares[0])
        result['calibration_error'] = float(np.mean(np.abs(shares[1:] - LEVELS)))
    return result
