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
TuSimple lane detection: motorway images and where their lanes are; there is no depth.

Layout: ``label_data*.json`` (or ``train_label_data.json``, ``test_label.json``: any label file), a
JSON object a line: ``raw_file``, ``h_samples`` (rows, pixels) and ``lanes`` (a list of columns for
those rows, -2 = no lane there). Along a lane the road gets farther with every row up, which gives
an order of distance for nothing.
"""
from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.image_files import read_image_rgb, read_lines
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample, Recording
from hybrid_depth_training.objectives.ordering import lane_map


def load(path: str, labels: str = '', focal_px: float = 1100.0,
         mark_lanes: bool = False) -> list[Recording]:
    """
    Load every labelled image, one recording each: they are seconds apart.

    ``path`` is the folder that the label files' names are relative to, ``labels`` names the label
    files as a pattern. TuSimple publishes no calibration: ``focal_px`` is taken for the 1280x720
    images (a field of view of 60 degrees), with the principal point in their middle.

    ``mark_lanes`` writes the lanes in place of depth, as marks that move with the image and that
    only ordering.lane_ladders can read: for the ladders ``lanes`` of the objective ``coarse``.
    """
    folder = Path(path)
    return [Recording(name, functools.partial(_read, folder, name, focal_px,
                                              polylines if mark_lanes else []), [None], [0])
            for name, polylines in lanes(path, labels).items()]


def lanes(path: str, labels: str = '') -> dict[str, list[np.ndarray]]:
    """
    Return the lanes of every labelled image, by the name of its file relative to ``path``.

    Each lane is (N, 2) float64, the pixels (u, v) from the bottom of the image (near) to the top
    (far); rows without the lane are left out, and lanes without a row. Raises DriveError.
    """
    files = sorted(Path(path).glob(labels)) if labels else sorted(
        file for pattern in ('label_data*.json', '*_label*.json') for file in
        Path(path).glob(pattern))
    if not files:
        raise DriveError(f'{path} holds no {labels or "label_data*.json"}; expected the folder of '
                         'the TuSimple lane data set, or labels: PATTERN')
    found = {}
    for file in dict.fromkeys(files):
        for number, line in enumerate(read_lines(file), start=1):
            if line.strip():
                name, polylines = _parse(line, f'{file}:{number}')
                found[name] = polylines
    return found


def _parse(line: str, where: str) -> tuple[str, list[np.ndarray]]:
    try:
        entry = json.loads(line)
        rows = np.array(entry['h_samples'], np.float64)
        columns = [np.array(lane, np.float64) for lane in entry['lanes']]
        name = str(entry['raw_file'])
    except (ValueError, KeyError, TypeError) as error:
        raise DriveError(f'{where} is no TuSimple label ({type(error).__name__}: {error}); '
                         'expected raw_file, h_samples and lanes') from error
    polylines = []
    for column in columns:
        if column.shape != rows.shape:
            raise DriveError(f'{where} has a lane of {len(column)} columns for {len(rows)} rows; '
                             'expected as many')
        seen = column >= 0
        lane = np.stack([column[seen], rows[seen]], axis=1)
        if len(lane):
            polylines.append(lane[np.argsort(-lane[:, 1], kind='stable')])
    return name, polylines


def _read(folder: Path, name: str, focal_px: float, marked: list[np.ndarray],
          _: int) -> DepthSample:
    image = read_image_rgb(folder / name)
    height, width = image.shape[:2]
    camera = CameraModel(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
    # from the top, as they were annotated: from there the seven of a ladder are counted
    marks = lane_map([lane[::-1] for lane in marked], height, width)
    return DepthSample(name, image, camera, marks, True)
