# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure models and priors on the same frames with the same code, and write it down."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
import logging
import os
from pathlib import Path
import platform
import time
from typing import Any

import numpy as np
import yaml

from hybrid_depth.config import PipelineConfig
from hybrid_depth.drives import Drive, DriveFrame, open_drive
from hybrid_depth.errors import DriveError
from hybrid_depth.models import find_model
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.summary import AccuracyTable
from hybrid_depth.types import Frame
from hybrid_depth_training.card import add_evaluation
from hybrid_depth_training.data import DATASETS
from hybrid_depth_training.priors import flat_ground, PositionPrior

_log = logging.getLogger(__name__)
Predict = Callable[[DriveFrame], tuple[np.ndarray, 'np.ndarray | None']]
MAX_M = 80.0
CROP = 0.7  # of the image's width and height, for the test with another focal length
_REAL_STREETS = ('drive', 'kitti_odometry')  # datasets the position prior may learn from


def evaluate(drive: str, models: list[str], prior_from: Path | None = None,
             camera_height_m: float = 1.65, json_path: Path | None = None,
             markdown_path: Path | None = None) -> list[dict[str, Any]]:
    """
    Measure flat ground, the position prior and ``models`` on every frame of ``drive`` with truth.

    ``prior_from`` is the training configuration whose real street frames the position prior is
    made of; without it that row is left out. Writes JSON and Markdown where asked to, and a
    shipped model's figures onto its card. Raises DriveError where no frame has truth.
    """
    opened = open_drive(drive)
    frames = [index for index in range(len(opened)) if opened.frame(index).depth_m is not None]
    if not frames:
        raise DriveError(f'{drive} has no ground-truth depth to measure against')
    methods: dict[str, Predict] = {
        f'flat ground ({camera_height_m} m)':
            lambda frame: (flat_ground(frame.camera, camera_height_m, MAX_M), None)}
    if prior_from is not None:
        prior = _position_prior(prior_from)
        methods['position only'] = lambda frame: (prior.depth(frame.camera), None)
    rows = [measure(name, predict, opened, frames) for name, predict in methods.items()]
    for model in models:
        pipeline = DepthPipeline(PipelineConfig(model=model, max_depth_m=MAX_M))
        pipeline.warm_up(opened.camera)
        predict = _predict_with(pipeline)
        rows.append(measure(pipeline.spec.name, predict, opened, frames))
        folder = find_model(model).parent
        if (folder / 'card.json').is_file():
            add_evaluation(folder, {**rows[-1], 'drive': opened.name})
        rows += [measure(f'{pipeline.spec.name}, {text}', _cropped(predict, keeps_K), opened,
                         frames)
                 for text, keeps_K in (('another focal length', False),
                                       ('another focal length, K not told', True))]
        pipeline.close()
    for row in rows:
        print(f'{row["name"]:28s} AbsRel {row["abs_rel"]:.3f}  RMSE {row["rmse"]:.2f} m  '
              f'd1 {row["d1"]:.3f}   median-scaled AbsRel {row["median_scaled"]["abs_rel"]:.3f}')
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(rows, indent=1) + '\n')
    if markdown_path is not None:
        markdown_path.write_text(_markdown(rows, opened, prior_from))
    return rows


def measure(name: str, predict: Predict, drive: Drive, frames: list[int]) -> dict[str, Any]:
    """Average the per-image figures of ``predict`` over ``frames``; metric, and median-scaled."""
    table = AccuracyTable(MAX_M)
    within, seconds = [], []
    for index in frames:
        frame = drive.frame(index)
        start = time.perf_counter()
        depth_m, sigma_m = predict(frame)
        seconds.append(time.perf_counter() - start)
        table.add(depth_m, frame.depth_m)
        if sigma_m is not None:
            both = np.isfinite(sigma_m) & np.isfinite(frame.depth_m) & (frame.depth_m <= MAX_M)
            error = np.abs(depth_m[both] - frame.depth_m[both])
            within.append(float(np.mean(error <= sigma_m[both])))
    accuracy = table.result()
    scale = float(np.median(table.scales))
    return {'name': name, 'frames': len(frames), **accuracy['metric'],
            'median_scaled': accuracy['median_scaled'],
            'scale_std': float(np.std(table.scales) / scale), 'scale_median': scale,
            'within_1_sigma': float(np.mean(within)) if within else None,
            'seconds_per_frame': float(np.median(seconds))}


def _predict_with(pipeline: DepthPipeline) -> Predict:
    def predict(frame: DriveFrame) -> tuple[np.ndarray, np.ndarray]:
        result = pipeline.run(Frame(frame.image_rgb, frame.stamp_ns, 'camera', frame.camera))
        return result.depth_m, result.sigma_m
    return predict


def _cropped(predict: Predict, keeps_K: bool) -> Predict:
    """
    Predict from the middle of the image only, which for a network is a longer focal length.

    With ``keeps_K`` the camera is said to be the uncropped one at a lower resolution: what metric
    depth would be if it did not depend on the intrinsics. Outside the crop there is no depth.
    """
    def predict_cropped(frame: DriveFrame) -> tuple[np.ndarray, np.ndarray | None]:
        camera = frame.camera
        width, height = round(camera.width * CROP), round(camera.height * CROP)
        x, y = (camera.width - width) // 2, (camera.height - height) // 2
        seen = camera.resized(width, height) if keeps_K else camera.cropped(x, y, width, height)
        window = slice(y, y + height), slice(x, x + width)
        depth_m, sigma_m = np.full((2, camera.height, camera.width), np.nan, np.float32)
        depth_m[window], sigma_m[window] = predict(replace(
            frame, image_rgb=np.ascontiguousarray(frame.image_rgb[window]), camera=seen))
        return depth_m, sigma_m
    return predict_cropped


def _position_prior(config_path: Path) -> PositionPrior:
    samples = []
    for source in yaml.safe_load(config_path.read_text())['sources']:
        if source['dataset'] in _REAL_STREETS and source['group'] == 'street':
            samples += DATASETS[source['dataset']](source['path'], **source.get('options', {}))
    return PositionPrior(samples)


def _markdown(rows: list[dict[str, Any]], drive: Drive, prior_from: Path | None) -> str:
    def line(row: dict[str, Any]) -> str:
        within = '' if row['within_1_sigma'] is None else f'{row["within_1_sigma"]:.2f}'
        return (f'| {row["name"]} | {row["abs_rel"]:.3f} | {row["sq_rel"]:.2f} | '
                f'{row["rmse"]:.2f} | {row["rmse_log"]:.3f} | {row["d1"]:.3f} | {row["d2"]:.3f} | '
                f'{row["d3"]:.3f} | {row["median_scaled"]["abs_rel"]:.3f} | '
                f'{row["scale_median"]:.2f} +- {row["scale_std"]:.2f} | {within} | '
                f'{1e3 * row["seconds_per_frame"]:.0f} |')
    prior = '' if prior_from is None else f' --prior_from {prior_from}'
    frames = rows[0]['frames']
    return '\n'.join([
        '# Accuracy', '',
        f'{frames} frames of drive `{drive.name}`; this is not the KITTI Eigen split, and its '
        'figures do not compare with ones of that split. Nothing was trained, tuned or selected '
        'on these frames. Metric depth without any scaling to the truth; truth is raw LiDAR up to '
        '80 m on the whole image, no crop; per-image figures, averaged.', '',
        'Written by', '', '```',
        f'python -m hybrid_depth_training evaluate <drive>{prior} --markdown docs/accuracy.md',
        '```', '',
        f'on {platform.machine()} with {os.cpu_count()} cores, Python '
        f'{platform.python_version()}; every row in the same run.',
        '',
        '| method | AbsRel | SqRel m | RMSE m | RMSElog | d1 | d2 | d3 | AbsRel, median-scaled | '
        'truth / prediction (median, std) | within 1 sigma | ms a frame |',
        '|---|---|---|---|---|---|---|---|---|---|---|---|',
        *map(line, rows), '',
        '- *flat ground*: an endless level road under a level camera, 80 m above the horizon.',
        '- *position only*: the median depth of the real street frames that the model was trained '
        'on, for each direction of view; it never looks at the image.',
        f'- *another focal length*: the model is given the middle {CROP:.0%} of the image in '
        'width and height, with its K, and measured there; *K not told*: the same, but with the '
        'intrinsics that the whole image would have at that size. The difference is what knowing '
        'K is worth.',
        '- *within 1 sigma*: share of pixels whose error is below the published sigma; 0.68 is '
        'perfect calibration.',
        '- *ms a frame*: preprocessing, network and postprocessing, two CPU threads, median.', ''])
