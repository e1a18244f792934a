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
"""The figures of a run over many frames, in the shape of every summary.json."""
from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
import os
from pathlib import Path
import platform

import numpy as np

from hybrid_depth.metrics import depth_metrics, median_scale

MEASURES = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1', 'd2', 'd3')
_VERSIONED = ('numpy', 'opencv-python-headless', 'onnxruntime', 'rclpy')


class AccuracyTable:
    """Per-image figures against truth, averaged over images: metric, and median-scaled."""

    def __init__(self, max_m: float = 80.0) -> None:
        self._max_m = max_m
        self._metric: list[dict[str, float]] = []
        self._scaled: list[dict[str, float]] = []
        self.scales: list[float] = []  # median(truth) / median(prediction) of each image

    def add(self, pred_m: np.ndarray, truth_m: np.ndarray) -> None:
        """Take one image, both (H, W) metres as in ``metrics.depth_metrics``."""
        scale = median_scale(pred_m, truth_m, max_m=self._max_m)
        self.scales.append(scale)
        self._metric.append(depth_metrics(pred_m, truth_m, max_m=self._max_m))
        self._scaled.append(depth_metrics(pred_m * scale, truth_m, max_m=self._max_m))

    def result(self) -> dict[str, dict[str, float]] | None:
        """Return {'metric': {measure: mean}, 'median_scaled': ...}; None before any image."""
        if not self._metric:
            return None
        return {name: {key: float(np.nanmean([row[key] for row in rows])) for key in MEASURES}
                for name, rows in (('metric', self._metric), ('median_scaled', self._scaled))}


def latency_percentiles(latencies_ms: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p95 and p99; None where there are none."""
    if not latencies_ms:
        return {'p50': None, 'p95': None, 'p99': None}
    values = np.percentile(np.asarray(latencies_ms), [50, 95, 99])
    return {f'p{percent}': round(float(value), 2)
            for percent, value in zip((50, 95, 99), values, strict=True)}


def versions(*more: str) -> dict[str, str]:
    """Return the versions that the figures depend on, of the packages ``more`` as well."""
    result = {'python': platform.python_version(), 'platform': platform.platform(),
              'ros_distro': os.environ.get('ROS_DISTRO', '')}
    for name in (*_VERSIONED, *more):
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            result[name] = 'not installed as a Python package'
    return result


def machine() -> str:
    """Return the processor, its cores and the Python that times were taken with, for people."""
    name = platform.processor() or platform.machine()
    path = Path('/proc/cpuinfo')
    if path.is_file():
        models = [line.partition(':')[2].strip() for line in path.read_text().splitlines()
                  if line.startswith('model name')]
        name = models[0] if models else name
    return f'{name}, {os.cpu_count()} cores, Python {platform.python_version()}'
