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
"""docs/accuracy.md, made from the rows of out/accuracy.json and from nothing else."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybrid_depth_training.evaluation.splits import NEAR_EPIPOLE_DEG, TOLERANCE, TOLERANCE_M

Row = dict[str, Any]
_GOALS = ('Published self-supervised figures for KITTI (AbsRel 0.090, RMSE 4.1 m, d1 0.91) are of '
          'other frames, trained on 39,810, and scaled to the truth by the median: a direction, '
          'not a comparison.')


def markdown(rows: Sequence[Row]) -> str:
    """Return the text of docs/accuracy.md for ``rows``."""
    drives = list(dict.fromkeys(row['drive'] for row in rows))
    parts = [
        '# Accuracy', '',
        'Metric depth without any scaling to the truth, 0 to 80 m, on the whole image; figures of '
        'each image, averaged. All rows are of the same frames and the same code. '
        + _GOALS, '',
        'Written by `make accuracy`, which also writes `out/accuracy.json`, on '
        f'{rows[0]["machine"]}{_busy(rows)}. `make accuracy ACCURACY_STREET=path '
        'ACCURACY_ROOM=path` measures on other drives with ground truth.', '']
    for drive in drives:
        parts += _drive([row for row in rows if row['drive'] == drive])
    return '\n'.join([*parts, *_notes()])


def _drive(rows: Sequence[Row]) -> list[str]:
    name, frames = rows[0]['drive'], rows[0]['frames']
    lines = [f'## {name}', '', f'{frames} frames. {_ABOUT.get(name, "")}'.rstrip(), '',
             '| method | AbsRel | SqRel m | RMSE m | RMSElog | d1 | d2 | d3 | coverage | '
             'AbsRel, median-scaled | truth / prediction (median, std) | flicker | '
             'within 1 sigma | ms a frame |', '|' + '---|' * 14]
    for row in rows:
        lines.append(
            f'| {row["name"]} | {row["abs_rel"]:.3f} | {row["sq_rel"]:.2f} | {row["rmse"]:.2f} | '
            f'{row["rmse_log"]:.3f} | {row["d1"]:.3f} | {row["d2"]:.3f} | {row["d3"]:.3f} | '
            f'{row["coverage"]:.2f} | {row["median_scaled"]["abs_rel"]:.3f} | '
            f'{row["scale_median"]:.3f} +- {row["scale_std"]:.3f} | '
            f'{_figure(row["temporal_flicker"], 3)} | {_figure(row["coverage_1sigma"], 2)} | '
            f'{1e3 * row["seconds_per_frame"]:.0f} |')
    return [*lines, '', *_parts(rows), *_focal(rows)]


def _parts(rows: Sequence[Row]) -> list[str]:
    """Return the table of AbsRel by range, motion and epipole."""
    def cells(row: Row) -> dict[str, dict[str, Any]]:
        ranges = {f'{b["range_m"][0]} to {b["range_m"][1]} m': b for b in row['bins']}
        return ranges | row['by_motion'] | {f'{key} the epipole' if key == 'near' else
                                            f'{key} from it': part
                                            for key, part in row['by_epipole'].items()}
    names = [name for name, part in cells(rows[0]).items() if part['share'] >= 1e-3]
    if not names:
        return []
    shares = [f'{100 * cells(rows[0])[name]["share"]:.1f} %' for name in names]
    lines = ['AbsRel / d1 of all pixels together, by depth, by what moves, and by how near the '
             'epipole of the motion is:', '', f'| method | {" | ".join(names)} |',
             '|' + '---|' * (len(names) + 1), f'| *share of truth* | {" | ".join(shares)} |']
    for row in rows:
        parts = [cells(row)[name] for name in names]
        text = [f'{_figure(p["abs_rel"], 3)} / {_figure(p["d1"], 3)}' for p in parts]
        lines.append(f'| {row["name"]} | {" | ".join(text)} |')
    return [*lines, '']


def _focal(rows: Sequence[Row]) -> list[str]:
    """Return the table of depth through another lens."""
    models = [row for row in rows if row.get('focal')]
    if not models:
        return []
    zooms = [(f['crop'], f['resize']) for f in models[0]['focal']]
    heads = [f'{100 * crop:.0f} % of it' if resize == 1 else f'resized by {resize}'
             for crop, resize in zooms]
    lines = ['Metric depth through another lens, over that of the whole image (1 = depth does not '
             'depend on the lens; the goal is within 3 %):', '',
             f'| method | {" | ".join(heads)} |', '|' + '---|' * (len(heads) + 1)]
    for row in models:
        by_zoom = {(f['crop'], f['resize']): f['scale_ratio'] for f in row['focal']}
        cells = [_figure(by_zoom.get(zoom), 3) for zoom in zooms]
        lines.append(f'| {row["name"]} | {" | ".join(cells)} |')
    return [*lines, '']


def _busy(rows: Sequence[Row]) -> str:
    """Return a warning where other work was competing for the processor."""
    load = max(row['load_average'] for row in rows)
    return f' (busy with other work, load {load:.0f}: the times are too long)' if load > 4 else ''


def _figure(value: float | None, digits: int) -> str:
    return '' if value is None else f'{value:.{digits}f}'


_ABOUT = {
    '2011_09_26_drive_0013_sync':
        'This is not the KITTI Eigen split. Nothing was trained, tuned or selected on this drive; '
        'truth is raw LiDAR, poses are those of the GNSS-INS.',
    'hololens_rgbd':
        'The last 10 % of the sequence, held out of training: later views of rooms that training '
        'saw. Truth is the depth camera, poses are those of the headset.',
}


def _notes() -> list[str]:
    return [
        '## What the rows and columns are', '',
        '- *flat ground*: an endless level road under a level camera, 80 m above the horizon.',
        '- *position only*: the median depth of the real frames that the models were trained on, '
        'for each direction of view; it never looks at the image.',
        '- *plane sweep*: classical matching (census, 7 x 7) against the two frames before, along '
        'the same poses; nothing is learned, its settings come from KITTI odometry 06 and 01. '
        '*where sure*: only pixels with one clear best depth, enough parallax, and a match that '
        'leads back; *coverage* says how many. The very first frame has nothing to match.',
        '- A model that takes odometry has two rows: with the poses of the drive, frame after '
        'frame as in the node, and *no odometry*: each image alone.',
        '- *truth / prediction*: median over the pixels of each image; median and standard '
        'deviation over images. *flicker*: median change of it from one measured frame to the '
        'next.',
        '- *within 1 sigma*: share of pixels whose error is below the published sigma; 0.68 is '
        'perfect calibration.',
        '- *ms a frame*: preprocessing, network and postprocessing, two CPU threads, median; the '
        'plane sweep is Python and meant as a bar for accuracy, not for speed.',
        f'- *static*, *moving*: nobody labelled what moves. Each measured point is carried along '
        'the motion of the camera into the measured frames before and after; it stood still where '
        f'the sensor found the same depth there (within {TOLERANCE_M} m or {100 * TOLERANCE:.0f} '
        '%), it moved where all measurements there end farther away, in a patch most of which '
        'does so. All else (occluded, out of view, edges) is in neither column.',
        f'- *near the epipole*: less than {NEAR_EPIPOLE_DEG:.0f} degrees from the direction of '
        'motion, where matching sees next to no parallax.', '']
