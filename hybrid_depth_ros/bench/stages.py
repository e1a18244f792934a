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
"""What each stage of a frame costs on its own, in this process, without any middleware."""
from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from hybrid_depth.cloud import CloudPacker
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import ModelSpec
from hybrid_depth.drives import open_drive
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.postprocess import to_depth
from hybrid_depth.preprocess import network_view, to_network
from hybrid_depth.types import DepthResult, EXTRAS, Frame
from hybrid_depth_ros.bench.frames import camera
from hybrid_depth_ros.bench.null_runtime import NullBackend
from hybrid_depth_ros.bench.statistics import median_ms


def stage_times(spec: ModelSpec, image_rgb: np.ndarray, seconds: float) -> dict[str, float]:
    """
    Return medians in ms for a camera of the size of ``image_rgb``.

    Depth is that of the runtime 'null': a slope with an edge.
    """
    view_camera = camera((image_rgb.shape[1], image_rgb.shape[0]))
    size = spec.network_size(view_camera.width, view_camera.height)
    view = network_view(view_camera, size)
    answers = NullBackend(spec, size).infer({})
    depth, sigma = answers['depth'][0, 0], answers['sigma'][0, 0]
    at_camera = PipelineConfig()
    at_network = replace(at_camera, resolution='network')

    def post(config: PipelineConfig, with_sigma: bool) -> float:
        return median_ms(lambda: to_depth(depth, sigma, view, config, spec.max_depth_m,
                                          with_sigma=with_sigma), seconds)

    arrays = to_depth(depth, sigma, view, at_camera, spec.max_depth_m)
    result = DepthResult(arrays.depth_m, arrays.sigma_m, arrays.edge, image_rgb, view_camera, 0,
                         'camera', 'single_frame')
    found = {'preprocess': median_ms(lambda: to_network(image_rgb, view), seconds),
             'postprocess': post(at_camera, False),
             'postprocess_with_sigma': post(at_camera, True),
             'postprocess_network_resolution': post(at_network, False)}
    for stride in (1, 2):
        packer = CloudPacker(stride, remove_edges=True)
        found[f'cloud_stride_{stride}'] = median_ms(partial(packer.pack, result), seconds)
    return found


def pipeline_times(model: str, backend: str, cpu_threads: int,
                   frames: int) -> dict[str, float]:
    """
    Run the first frames of the synthetic drive with their poses; return medians of its stages.

    Of the frames with the most sources, where the model matches against earlier ones.
    """
    drive = open_drive('synthetic')
    pipeline = DepthPipeline(PipelineConfig(model=model, backend=backend,
                                            cpu_threads=cpu_threads))
    times = []
    try:
        for index in range(frames):
            frame = drive.frame(index)
            result = pipeline.run(Frame(frame.image_rgb, frame.stamp_ns, 'camera', frame.camera,
                                        frame.world_T_camera), EXTRAS)
            times.append((result.sources, result.timings_ms))
    finally:
        pipeline.close()
    most = max(sources for sources, _ in times)
    chosen = [stages for sources, stages in times[1:] if sources == most]
    return {name: round(float(np.median([stages[name] for stages in chosen])), 3)
            for name in chosen[0]} | {'sources': most} if chosen else {}
