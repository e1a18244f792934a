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
"""A start costs no more than it has to: what the node does not need at once it does not import."""
from __future__ import annotations

from pathlib import Path
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed: no node can be run')

ROOT = Path(__file__).resolve().parents[2]
NOT_AT_START = ('torch', 'onnx', 'onnxruntime', 'scipy', 'numba', 'matplotlib', 'rerun',
                'hybrid_depth_training', 'hybrid_depth.runtime.ladder',
                'hybrid_depth.runtime.builder', 'hybrid_depth.runtime.reference',
                'hybrid_depth_ros.build_only')


def imported(code: str) -> set[str]:
    """Return what is imported after ``code`` in a process of its own."""
    result = subprocess.run([sys.executable, '-c', f'{code}\nimport sys\nprint(*sys.modules)'],
                            cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return set(result.stdout.split())


def test_the_node_imports_only_what_it_needs() -> None:
    names = imported('import hybrid_depth_ros.depth_node')
    assert 'hybrid_depth_ros.session' in names
    assert names.isdisjoint(NOT_AT_START)


def test_a_cpu_runtime_needs_nothing_that_builds_engines(tiny_model: Path) -> None:
    names = imported('from hybrid_depth.config import PipelineConfig\n'
                     'from hybrid_depth.pipeline import DepthPipeline\n'
                     f'config = PipelineConfig(model={str(tiny_model)!r}, backend="ort")\n'
                     'DepthPipeline(config, is_live=True).close()')
    assert 'onnxruntime' in names
    assert names.isdisjoint(set(NOT_AT_START) - {'onnxruntime'})
