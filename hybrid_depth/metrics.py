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
"""Depth error measures of Eigen, Puhrsch and Fergus (NeurIPS 2014), section 4.3."""
from __future__ import annotations

import numpy as np

from hybrid_depth.errors import BadFrame


def depth_metrics(pred_m: np.ndarray, truth_m: np.ndarray, min_m: float = 1e-3,
                  max_m: float = 80.0) -> dict[str, float]:
    """
    Compare one predicted depth image with its truth, both (H, W) metres.

    Only pixels with truth in [min_m, max_m] count. The prediction p is clamped to that range
    first, so +Inf (beyond range) is scored as max_m and -Inf (too near) as min_m; a NaN
    prediction is left out and lowers ``coverage``. With t the truth and mean over those pixels:

    - abs_rel = mean(|p - t| / t), sq_rel = mean((p - t)^2 / t) [m]
    - rmse = sqrt(mean((p - t)^2)) [m], rmse_log = sqrt(mean((ln p - ln t)^2))
    - log10 = mean(|lg p - lg t|), as indoor tables have it
    - d1, d2, d3 = share with max(p / t, t / p) < 1.25, 1.25^2, 1.25^3
    - coverage = share of the pixels with truth that have a prediction

    All are NaN where no pixel counts (coverage: where no pixel has truth).
    Raises BadFrame where the shapes differ.
    """
    has_truth, is_used = _masks(pred_m, truth_m, min_m, max_m)
    truths, used = np.count_nonzero(has_truth), np.count_nonzero(is_used)
    result = dict.fromkeys(('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'd1', 'd2',
                            'd3'), float('nan'))
    result['coverage'] = used / truths if truths else float('nan')
    if not used:
        return result
    p = np.clip(pred_m[is_used].astype(np.float64), min_m, max_m)
    t = truth_m[is_used].astype(np.float64)
    error = p - t
    ratio = np.maximum(p / t, t / p)
    result.update(
        abs_rel=float(np.mean(np.abs(error) / t)),
        sq_rel=float(np.mean(error**2 / t)),
        rmse=float(np.sqrt(np.mean(error**2))),
        rmse_log=float(np.sqrt(np.mean((np.log(p) - np.log(t))**2))),
        log10=float(np.mean(np.log10(ratio))),
        d1=float(np.mean(ratio < 1.25)),
        d2=float(np.mean(ratio < 1.25**2)),
        d3=float(np.mean(ratio < 1.25**3)))
    return result


def median_scale(pred_m: np.ndarray, truth_m: np.ndarray, min_m: float = 1e-3,
                 max_m: float = 80.0) -> float:
    """
    Return median(truth) / median(prediction) over pixels where both are finite.

    Only pixels with truth in [min_m, max_m] and a positive prediction count; NaN where there is
    none. Multiply the prediction by it for the median-scaled protocol.
    """
    _, is_used = _masks(pred_m, truth_m, min_m, max_m)
    is_used &= np.isfinite(pred_m) & (pred_m > 0)
    if not is_used.any():
        return float('nan')
    return float(np.median(truth_m[is_used].astype(np.float64))
                 / np.median(pred_m[is_used].astype(np.float64)))


def _masks(pred_m: np.ndarray, truth_m: np.ndarray, min_m: float,
           max_m: float) -> tuple[np.ndarray, np.ndarray]:
    if pred_m.shape != truth_m.shape:
        raise BadFrame('size_mismatch', f'the prediction is {pred_m.shape}, the truth '
                       f'{truth_m.shape}; compare them on the same pixels')
    has_truth = (truth_m >= min_m) & (truth_m <= max_m)  # false for NaN and +Inf
    return has_truth, has_truth & ~np.isnan(pred_m)
