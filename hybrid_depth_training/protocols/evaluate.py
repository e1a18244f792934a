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
"""Score a folder of predictions against a folder of ground truth by a published protocol."""
from __future__ import annotations

from collections.abc import Mapping
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.drives.image_files import read_image_rgb
from hybrid_depth.errors import BadFrame, ConfigError, DriveError
from hybrid_depth.montage import montage, MontageRow
from hybrid_depth_training.protocols import find_protocol, Protocol
from hybrid_depth_training.protocols.folders import (
    check_same,
    depth_files,
    image_files,
    read_depth,
    sigma_files,
)
from hybrid_depth_training.protocols.report import write_csv, write_markdown, write_picture
from hybrid_depth_training.protocols.scores import align, Aligned, average, ImageScore, score
from hybrid_depth_training.protocols.splits import read_split

_log = logging.getLogger(__name__)
_PICTURED = 6  # frames in the montage, from the best to the worst


def evaluate_folders(pred: Path, gt: Path, protocol: str, scaling: bool = True,
                     crop: str | None = None, split: Path | None = None,
                     pred_scale: float | None = None, gt_scale: float | None = None,
                     csv_path: Path | None = None, markdown_path: Path | None = None,
                     montage_path: Path | None = None,
                     images: Path | None = None) -> dict[str, Any]:
    """
    Score every frame of ``pred`` against ``gt``; return the averages.

    Files belong together by name (folders.frame_name) and are read as folders.read_depth says;
    sigma is measured where ``pred`` has a folder ``sigma``. ``scaling``: multiply each prediction
    by median truth / median prediction. ``split`` names the frames to score; without it both
    folders have to hold the same ones. ``pred_scale`` and ``gt_scale`` are units per metre.
    The paths are of files to write; ``images`` is a folder of colour images for the montage.

    Returns protocol, images (their number), scaling, crop, pred and gt, and what scores.average
    returns. Raises ConfigError for an option that is no such thing, and DriveError where files are
    missing, cannot be read, or a frame cannot be scored.
    """
    rule = find_protocol(protocol, crop)
    for key, value in (('pred_scale', pred_scale), ('gt_scale', gt_scale)):
        if value is not None and not 0 < value < np.inf:
            raise ConfigError(f'--{key} is {value}; expected units per metre, such as 256 or 1000')
    if images is not None and montage_path is None:
        raise ConfigError('--images is for the montage; name its file with --montage')
    files = _Files(pred, gt, rule, scaling, split, pred_scale, gt_scale)
    pictures = image_files(images) if images is not None else {}
    if images is not None:
        check_same(files.names, pictures, str(images), exact=False)
    scores = {name: files.score(name) for name in files.names}
    result = {'protocol': protocol, 'images': len(scores),
              'scaling': 'median' if scaling else 'none', 'crop': rule.crop, 'pred': str(pred),
              'gt': str(gt), **average(list(scores.values()))}
    if result['coverage'] < 1:
        _log.warning('%.2f %% of the truth has no prediction and is not scored; published figures '
                     'are of dense predictions', 100 * (1 - result['coverage']))
    if csv_path is not None:
        write_csv(csv_path, scores)
    if markdown_path is not None:
        write_markdown(markdown_path, result)
    if montage_path is not None:
        write_picture(montage_path, _montage(files, scores, result, pictures))
    return result


class _Files:
    """The frames of both folders, found at once and read when asked for."""

    def __init__(self, pred: Path, gt: Path, protocol: Protocol, scaling: bool,
                 split: Path | None, pred_scale: float | None, gt_scale: float | None) -> None:
        self.protocol, self._scaling = protocol, scaling
        self._scales = pred_scale, gt_scale
        self._pred, self._gt = depth_files(pred), depth_files(gt)
        self._sigma = sigma_files(pred)
        self.names = sorted(self._gt) if split is None else read_split(split)
        check_same(self.names, self._gt, f'--gt {gt}', exact=False)
        check_same(self.names, self._pred, f'--pred {pred}', exact=split is None)
        if self._sigma:
            check_same(self.names, self._sigma, f'sigma of --pred {pred}', exact=False)

    def aligned(self, name: str) -> Aligned:
        """Read one frame and bring it to what is compared."""
        unit, (pred_scale, gt_scale) = self.protocol.png_units_per_m, self._scales
        sigma_m = None
        if self._sigma:
            sigma_m = read_depth(self._sigma[name], unit, pred_scale)
        return align(read_depth(self._pred[name], unit, pred_scale),
                     read_depth(self._gt[name], unit, gt_scale), self.protocol, self._scaling,
                     sigma_m)

    def score(self, name: str) -> ImageScore:
        """Score one frame; an error names it."""
        try:
            return score(self.aligned(name))
        except BadFrame as bad:
            raise DriveError(f'{self._pred[name]} against {self._gt[name]}: {bad}') from bad


def _montage(files: _Files, scores: Mapping[str, ImageScore], result: Mapping[str, Any],
             pictures: Mapping[str, Path]) -> np.ndarray:
    """Draw frames evenly spread from the lowest to the highest AbsRel."""
    ranked = sorted(scores, key=lambda name: scores[name].figures['abs_rel'])
    places = np.linspace(0, len(ranked) - 1, min(_PICTURED, len(ranked))).round().astype(int)
    rows = [_row(name, files.aligned(name), scores[name], pictures.get(name))
            for name in (ranked[place] for place in places)]
    scaling = 'median-scaled' if result['scaling'] == 'median' else 'not scaled'
    title = (f'{Path(result["pred"]).name}: protocol {result["protocol"]}, {scaling}, '
             f'{result["images"]} images, AbsRel {result["abs_rel"]:.3f}; from the best to the '
             'worst')
    farthest = max(float(np.nanmax(row.truth_m)) for row in rows)
    return montage(rows, title, max(files.protocol.max_m, math.ceil(farthest)))


def _row(name: str, aligned: Aligned, scored: ImageScore, image: Path | None) -> MontageRow:
    image_rgb = None if image is None else read_image_rgb(image)
    if image_rgb is not None and image_rgb.shape[:2] != aligned.depth_m.shape:
        raise DriveError(f'{image} is {image_rgb.shape[1]}x{image_rgb.shape[0]}, its truth '
                         f'{aligned.depth_m.shape[1]}x{aligned.depth_m.shape[0]}; give images of '
                         'the same size')
    figures = scored.figures
    return MontageRow(f'{name}   AbsRel {figures["abs_rel"]:.3f}, d1 {figures["d1"]:.3f}',
                      image_rgb, aligned.depth_m.astype(np.float32), aligned.sigma_m, None,
                      aligned.truth_m.astype(np.float32))
