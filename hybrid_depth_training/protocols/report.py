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
"""What an evaluation of two folders is written down as: CSV, Markdown and a picture."""
from __future__ import annotations

from collections.abc import Mapping
import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.protocols import PROTOCOLS
from hybrid_depth_training.protocols.peers import peers_of
from hybrid_depth_training.protocols.scores import ImageScore, MEASURES

_HEADS = ('AbsRel', 'SqRel m', 'RMSE m', 'RMSElog', 'log10', 'd1', 'd2', 'd3')


def write_csv(path: Path, scores: Mapping[str, ImageScore]) -> None:
    """Write one line per image: name, MEASURES, coverage, scale, pixels, within_1_sigma."""
    _make_room(path)
    with path.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(('name', *MEASURES, 'coverage', 'scale', 'pixels', 'within_1_sigma'))
        for name, score in scores.items():
            figures = [score.figures[key] for key in (*MEASURES, 'coverage')]
            within = '' if score.within is None else score.within[0]
            writer.writerow((name, *figures, score.scale, score.pixels, within))


def write_markdown(path: Path, result: Mapping[str, Any]) -> None:
    """Write the result of ``evaluate_folders`` beside published figures of the same protocol."""
    _make_room(path)
    path.write_text(markdown(result))


def markdown(result: Mapping[str, Any]) -> str:
    """Return the page: our row, what is scored and how, and the peers' rows."""
    protocol = PROTOCOLS[result['protocol']]
    is_published = result['crop'] == protocol.crop
    scaled = result['scaling'] == 'median'
    peers = peers_of(result['protocol'], scaled) if is_published else []
    scaling = 'each prediction scaled by median truth / median prediction' if scaled \
        else 'metric, nothing scaled to the truth'
    lines = [
        f'# Accuracy by the protocol `{result["protocol"]}`', '',
        f'{result["images"]} images; {scaling}; crop `{result["crop"]}`; per-image figures, '
        f'averaged. The published test sets have {protocol.images} images: figures of other '
        'images do not compare with theirs.', '',
        f'Protocol: {protocol.source}.', '',
        *_table([(f'**{Path(result["pred"]).name}**', f'{result["images"]} images',
                  result, 'measured here')]), '',
        f'- Truth / prediction, median over the images: {result["scale_median"]:.3f}, standard '
        f'deviation {result["scale_std"]:.3f} of it.',
        f'- {100 * result["coverage"]:.1f} % of the truth has a prediction; the rest is not '
        'scored.']
    if result['within_1_sigma'] is not None:
        lines.append(f'- {100 * result["within_1_sigma"]:.1f} % of the errors are within one '
                     'sigma (68.3 % where sigma is right); calibration error '
                     f'{result["calibration_error"]:.3f}.')
    lines += ['', '## Published, not measured here', '']
    if peers:
        sources = list(dict.fromkeys(peer.source for peer in peers))
        lines += _table([(p.method, p.given, p.figures, f'[{sources.index(p.source) + 1}]')
                         for p in peers])
        lines += ['', *(f'{number}. {source[0].upper()}{source[1:]}.'
                        for number, source in enumerate(sources, start=1))]
    elif is_published:
        lines.append('No figures with this scaling were found.')
    else:
        lines.append(f'Published figures are of the crop `{protocol.crop}` and do not compare.')
    return '\n'.join([*lines, ''])


def _table(rows: list[tuple[str, str, Mapping[str, float], str]]) -> list[str]:
    lines = ['| method | given | ' + ' | '.join(_HEADS) + ' | where from |',
             '|---' * (len(_HEADS) + 3) + '|']
    for method, text, figures, source in rows:
        cells = [f'{figures[key]:.3f}' if key in figures else '' for key in MEASURES]
        lines.append(f'| {method} | {text} | ' + ' | '.join(cells) + f' | {source} |')
    return lines


def write_picture(path: Path, picture_rgb: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB. Raises ConfigError where ``path`` is of no format OpenCV has."""
    _make_room(path)
    try:
        cv2.imwrite(str(path), cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ConfigError(f'{path} cannot be written as a picture; name it .png') from error


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
