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
Whether a runtime gives the depth that the model gives: asked before any of it is published.

Several versions of GPU libraries turn vision transformers into plausible, wrong depth without a
word, so neither a successful build nor a finite output is trusted.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.runtime import Backend
from hybrid_depth.runtime.reference import Case, feed_of, Reference

_NO_SPREAD = 1e-4  # standard deviation of ln depth below which a correlation means nothing


@dataclass(frozen=True)
class Tolerance:
    """Limits for |ln(value / expected)|, a relative error, and the correlation of ln depth."""

    median: float
    mean: float
    p99: float  # of depth that no look-up decided
    matched_p99: float  # of depth that look-ups helped to decide
    pearson: float  # at least; where frames are matched, of the 99 % that differ least
    sigma_median: float
    sigma_p99: float
    weight: float  # mean |difference| of match_weight, which is 0 to 1


# By what the graph computes in. Where two depths are equally likely, or a look-up falls between
# two pixels, the last bit decides: a few percent of a graph that matches frames differ in any two
# runtimes, each by as much as a look may change it. So it is their mean that is limited most.
TOLERANCES: dict[str, Tolerance] = {
    'fp32': Tolerance(0.002, 0.002, 0.02, 0.01, 0.9995, 0.01, 0.1, 0.01),
    'fp16': Tolerance(0.01, 0.005, 0.05, 0.2, 0.999, 0.05, 0.25, 0.03),
    'fp16_safe': Tolerance(0.01, 0.005, 0.05, 0.2, 0.999, 0.05, 0.25, 0.03),
    'int8_mix': Tolerance(0.02, 0.02, 0.10, 0.4, 0.995, 0.10, 0.40, 0.05),
}
_ASIDE_PX = 8  # how far an image is moved that is matched with what it was


@dataclass(frozen=True)
class Acceptance:
    """The verdict on one opened model."""

    ok: bool
    reason: str  # why not; '' where it is accepted
    figures: Mapping[str, float]  # the worst of all cases, by the names of Tolerance
    source: str  # of the reference, for people

    def text(self) -> str:
        """Return verdict and figures in one line."""
        figures = ', '.join(f'{name} {value:.3g}' for name, value in self.figures.items())
        return f'{self.reason or "accepted"} ({figures or "no figures"}; {self.source})'


def accept(backend: Backend, spec: ModelSpec, reference: Reference, precision: str) -> Acceptance:
    """
    Compare ``backend`` with ``reference`` by the tolerances of ``precision``.

    For kind 'posed' also whether features that the backend keeps for itself do what the reference
    features do. Never raises for what the backend does: an error is a reason to refuse.
    """
    tolerance = TOLERANCES[precision]
    figures: dict[str, float] = {}
    reason = ''
    for number, case in enumerate(reference.cases, start=1):
        try:
            reason = _judge_case(backend, spec, case, tolerance, figures)
        except Exception as error:  # the edge: whatever a runtime raises, it is not accepted
            reason = f'it failed: {type(error).__name__}: {error}'
        if reason:
            reason = f'case {number} of {len(reference.cases)}: {reason}'
            break
    return Acceptance(not reason, reason, figures, reference.source)


def _judge_case(backend: Backend, spec: ModelSpec, case: Case, tolerance: Tolerance,
                figures: dict[str, float]) -> str:
    feed = feed_of(spec, case.inputs)
    outputs = backend.infer(feed)
    handle = outputs.get('features')
    reason = _judge(outputs, case.expected, spec, tolerance, figures) \
        or _judge_correlation(outputs, case.expected, spec, tolerance, figures)
    if reason or spec.kind != 'posed':
        return reason
    # what the backend made of this image must be as good a source as what it should have made
    moved = _moved(feed, case.expected['depth'])
    own = {**moved, 'source_features': (handle,) * spec.sources}
    given = {**moved, 'source_features': (case.expected['features'],) * spec.sources}
    expected = {name: np.array(array) for name, array in backend.infer(given).items()
                if name != 'features'}
    reason = _judge(backend.infer(own), expected, spec, tolerance, figures)
    return f'with its own features as source: {reason}' if reason else ''


def _moved(feed: Mapping[str, Any], depth: np.ndarray) -> dict[str, Any]:
    """
    Return the image and poses of a camera that has moved aside along a wall with this picture.

    So the image itself, as a source, matches everywhere but at one edge: where nothing matches,
    any two runtimes differ.
    """
    image = np.pad(feed['image'][:, :, _ASIDE_PX:], ((0, 0), (0, 0), (0, _ASIDE_PX), (0, 0)),
                   'edge')
    motions = np.tile(np.eye(4, dtype=np.float32), (*feed['source_valid'].shape, 1, 1))
    motions[..., 0, 3] = _ASIDE_PX * np.median(depth) / feed['K'][0, 0, 0]
    return {**feed, 'image': image, 'source_T_target': motions,
            'source_valid': np.ones_like(feed['source_valid'])}


def _judge(outputs: Mapping[str, Any], expected: Mapping[str, np.ndarray], spec: ModelSpec,
           tolerance: Tolerance, figures: dict[str, float]) -> str:
    """Return why ``outputs`` are refused, '' where they are not; note the figures."""
    for name in expected:
        if name == 'features':
            continue
        array = outputs.get(name)
        if array is None or array.shape != expected[name].shape:
            return f'{name} is {"missing" if array is None else array.shape}'
        if not np.isfinite(array).all():
            return f'{name} is not finite'
        if name != 'match_weight' and not (array > 0).all():
            return f'{name} is not positive'
    checks = [('depth', 'median', 'mean', 'p99')]
    if spec.kind == 'posed':
        # depth by matching alone is anything where nothing matches: its median has to fit
        checks = [('depth', 'median', 'mean', 'matched_p99'),
                  ('single_depth', 'median', 'mean', 'p99'), ('matched_depth', 'median', '', '')]
    checks.append(('sigma', 'sigma_median', '', 'sigma_p99'))
    measured: list[tuple[str, str, float]] = []  # output, name of the limit, value
    for name, *limits in checks:
        error = np.abs(np.log(outputs[name].astype(np.float64) / expected[name]))
        values = (np.median(error), error.mean(), np.percentile(error, 99))
        measured += [(name, limit, float(value))
                     for limit, value in zip(limits, values, strict=True) if limit]
    if spec.kind == 'posed':
        difference = np.abs(outputs['match_weight'].astype(np.float64) - expected['match_weight'])
        measured.append(('match_weight', 'weight', float(difference.mean())))
    for name, limit, value in measured:
        figures[limit] = max(figures.get(limit, 0.0), value)
        if not value <= getattr(tolerance, limit):
            return f'the error {limit} of {name} is {value:.3g}; at most ' \
                   f'{getattr(tolerance, limit):g} is accepted'
    return ''


def _judge_correlation(outputs: Mapping[str, Any], expected: Mapping[str, np.ndarray],
                       spec: ModelSpec, tolerance: Tolerance, figures: dict[str, float]) -> str:
    """Return why depth is refused, '' where it is not; note the figure."""
    found, right = (np.log(arrays['depth']).ravel() for arrays in (outputs, expected))
    if spec.kind == 'posed':  # a few pixels that the last bit decides outweigh all the others
        error = np.abs(found - right)
        is_asked = error <= np.percentile(error, 99)
        found, right = found[is_asked], right[is_asked]
    pearson = _correlation(found, right)
    figures['pearson'] = min(figures.get('pearson', 1.0), pearson)
    if not pearson >= tolerance.pearson:
        return f'ln depth correlates with what is right by {pearson:.6g}; at least ' \
               f'{tolerance.pearson:g} is accepted'
    return ''


def _correlation(found: np.ndarray, expected: np.ndarray) -> float:
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    if expected.std() < _NO_SPREAD:
        return 1.0  # an image of one depth: the errors say it all
    if found.std() < _NO_SPREAD:
        return 0.0
    return float(np.corrcoef(found, expected)[0, 1])
