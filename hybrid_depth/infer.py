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
"""Depth for every frame of a drive, written to files: what the command ``infer`` does."""
from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hybrid_depth.cloud import CloudPacker
from hybrid_depth.config import PipelineConfig
from hybrid_depth.drives import Drive, DriveFrame, open_drive
from hybrid_depth.errors import BadFrame, ConfigError
from hybrid_depth.montage import montage, MontageRow
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.summary import AccuracyTable, latency_percentiles, versions
from hybrid_depth.types import DepthResult, Frame


def infer(drive_path: str, out: Path, config: PipelineConfig, limit: int = 0,
          on_frame: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """
    Run the pipeline over the drive at ``drive_path`` and write what comes out into ``out``.

    ``depth/NAME.npy`` and ``sigma/NAME.npy`` (H, W) float32 metres, ``preview/NAME.png`` and
    ``summary.json``, which is returned too. A file is written whole or not at all. The poses of
    the drive serve as odometry. ``limit`` 0 means every frame; ``on_frame(done, total)`` is told
    of each. A frame that cannot be used is counted under ``drops``. Raises HybridDepthError where
    drive, model or ``out`` cannot be used.
    """
    drive = open_drive(drive_path)
    _check_out(out, drive)
    pipeline = DepthPipeline(config)
    count = min(len(drive), limit or len(drive))
    for name in ('depth', 'sigma', 'preview'):
        (out / name).mkdir(parents=True, exist_ok=True)
    accuracy = AccuracyTable(config.max_depth_m)
    latencies: list[float] = []
    drops: dict[str, int] = {}
    posed = 0
    try:
        for index in range(count):
            frame = drive.frame(index)
            try:
                if not latencies:
                    pipeline.warm_up(frame.camera)
                result = pipeline.run(Frame(frame.image_rgb, frame.stamp_ns, drive.name,
                                            frame.camera, frame.world_T_camera))
            except BadFrame as bad:
                drops[bad.reason] = drops.get(bad.reason, 0) + 1
                continue
            latencies.append(result.timings_ms['total'])
            posed += result.mode == 'posed'
            _write_frame(out, frame, result, config.max_depth_m)
            if frame.depth_m is not None and frame.depth_m.shape == result.depth_m.shape:
                accuracy.add(result.depth_m, frame.depth_m)
            on_frame(index + 1, count)
    finally:
        pipeline.close()
    summary = {
        'drive': drive.name, 'frames': count, 'frames_processed': len(latencies), 'drops': drops,
        'posed_share': round(posed / len(latencies), 3) if latencies else None,
        'latency_ms': latency_percentiles(latencies), 'accuracy': accuracy.result(),
        'model': pipeline.spec.name, 'backend': pipeline.backend_description,
        'versions': versions()}
    _write(out / 'summary.json', (json.dumps(summary, indent=2) + '\n').encode())
    return summary


def _check_out(out: Path, drive: Drive) -> None:
    if drive.source is None:
        return
    source, target = drive.source.resolve(), out.resolve()
    if source == target or source in target.parents:
        raise ConfigError(f'--out {out} lies inside the drive {drive.source}; recordings are not '
                          'written to: name another folder')


def _write_frame(out: Path, frame: DriveFrame, result: DepthResult, max_depth_m: float) -> None:
    for name, array in (('depth', result.depth_m), ('sigma', result.sigma_m)):
        path = out / name / f'{frame.name}.npy'
        part = path.with_suffix('.part')
        with part.open('wb') as stream:  # given a path, save would add a suffix
            np.save(stream, array)
        os.replace(part, path)
    stride = max(1, result.camera.width // 640)
    truth = frame.depth_m if frame.depth_m is not None \
        and frame.depth_m.shape == result.depth_m.shape else None
    points = CloudPacker(stride, remove_edges=True).pack(result).xyz()
    picture = montage([MontageRow(frame.name, result.image_rgb, result.depth_m, result.sigma_m,
                                  points, truth)], frame.name, max_depth_m)
    _, data = cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    _write(out / 'preview' / f'{frame.name}.png', data.tobytes())


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix('.part')
    part.write_bytes(data)
    os.replace(part, path)
