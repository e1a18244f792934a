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
"""Configuration of the pipeline: frozen dataclasses; an unknown key or a bad value is an error."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from hybrid_depth.errors import ConfigError
from hybrid_depth.runtime import BackendOptions, PRECISIONS

FAR_POLICIES = ('inf', 'nan', 'clip')
RESOLUTIONS = ('camera', 'network')


@dataclass(frozen=True)
class PipelineConfig:
    """
    Everything that decides what depth comes out for a frame.

    A field's metadata-free default is what the node uses; the ROS parameter table and the command
    line are checked against these fields by a test.
    """

    model: str = 'compact'  # name of a shipped model, or path of an .onnx file
    backend: str = 'auto'  # row of runtime.BACKENDS, or auto = the first that is available
    cpu_threads: int = 2  # threads of a CPU runtime; they never spin between frames
    precision: str = 'auto'  # one of runtime.PRECISIONS; 'auto': fp32 on a CPU, fp16 on a GPU
    engine_cache: str = ''  # folder of built engines; '' = in the user's cache folder
    gpu: int = 0  # index of the CUDA device
    resolution: str = 'camera'  # 'camera': depth on the image's pixels; 'network': the model's
    min_depth_m: float = 0.1  # nearer is -Inf
    max_depth_m: float = 80.0  # farther goes by far_policy
    far_policy: str = 'inf'  # 'inf' (REP-117), 'nan', or 'clip' to max_depth_m
    max_relative_sigma: float = 0.0  # sigma/depth above this is NaN; 0 switches the test off
    edge_ratio: float = 1.15  # neighbours whose depths differ by this factor are an edge
    use_odometry: bool = True  # match against earlier frames where model and pose allow it
    camera_height_m: float = 0.0  # of the camera over the ground, a cue of scale; 0 = unknown
    scene_prompt: str = ''  # words about the scene, for a model of kind 'clip_prior'; '' = none

    def __post_init__(self) -> None:
        def check(ok: bool, key: str, expected: str) -> None:
            if not ok:
                raise ConfigError(f'{key} is {getattr(self, key)!r}; expected {expected}')
        for entry in fields(self):
            kind = type(entry.default)
            value = getattr(self, entry.name)
            if kind is float and type(value) is int:
                object.__setattr__(self, entry.name, float(value))
            elif type(value) is not kind:
                raise ConfigError(f'{entry.name} is {value!r}; expected a {kind.__name__}')
        check(bool(self.model), 'model', 'a model name or a path')
        check(bool(self.backend), 'backend', "'auto' or the name of a runtime")
        check(1 <= self.cpu_threads <= 64, 'cpu_threads', '1 to 64')
        check(self.precision in PRECISIONS, 'precision', f'one of {PRECISIONS}')
        check(0 <= self.gpu <= 63, 'gpu', '0 to 63')
        check(self.resolution in RESOLUTIONS, 'resolution', f'one of {RESOLUTIONS}')
        check(0.001 <= self.min_depth_m < self.max_depth_m, 'min_depth_m',
              f'0.001 to below max_depth_m ({self.max_depth_m})')
        check(self.max_depth_m <= 1000.0, 'max_depth_m', 'at most 1000 m')
        check(self.far_policy in FAR_POLICIES, 'far_policy', f'one of {FAR_POLICIES}')
        check(0.0 <= self.max_relative_sigma <= 10.0, 'max_relative_sigma', '0 to 10')
        check(1.01 <= self.edge_ratio <= 10.0, 'edge_ratio', '1.01 to 10')
        check(0.0 <= self.camera_height_m <= 100.0, 'camera_height_m', '0 (unknown) to 100 m')

    def backend_options(self) -> BackendOptions:
        """Return what a runtime needs to know."""
        return BackendOptions(self.cpu_threads, self.precision, self.engine_cache, self.gpu)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> PipelineConfig:
        """Build from a mapping. Raises ConfigError on an unknown key."""
        return cls().updated(mapping)

    def updated(self, mapping: Mapping[str, Any]) -> PipelineConfig:
        """Return a copy with the values of ``mapping``. Raises ConfigError; changes nothing."""
        known = {entry.name for entry in fields(self)}
        unknown = sorted(set(mapping) - known, key=str)
        if unknown:
            raise ConfigError(f'unknown configuration keys {unknown}; known: {sorted(known)}')
        return replace(self, **mapping)
