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
"""The model card: what a model is, was made of, may be used for and can do."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NON_COMMERCIAL = 'CC-BY-NC-SA-3.0'
_DATA = {  # dataset and folder in a model's trained_on begin with -> where it is from, its licence
    'drive 2011_09_26_drive': 'KITTI raw (Geiger et al. 2013), LiDAR depth; CC BY-NC-SA 3.0',
    'kitti_odometry': 'KITTI odometry (Geiger et al. 2012), depth by our own stereo matching; '
                      'CC BY-NC-SA 3.0',
    'nyu': 'NYU Depth v2 (Silberman et al. 2012), RGB-D; for research',
    'sunrgbd': 'SUN RGB-D (Song et al. 2015), RGB-D; for research',
    'sevenscenes': '7-Scenes (Shotton et al. 2013), RGB-D; non-commercial',
    'drive hololens': 'HoloLens RGB-D sequence; MIT',
    'synthetic': "this project's synthetic streets, single views and short drives; Apache-2.0",
}


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write card.json and CARD.md, each whole or not at all."""
    for name, text in (('card.json', json.dumps(card, indent=1) + '\n'),
                       ('CARD.md', render(card))):
        part = folder / f'.{name}.part'
        part.write_text(text)
        os.replace(part, folder / name)


def add_evaluation(folder: Path, row: dict[str, Any]) -> None:
    """Put one row of an evaluation on the card in ``folder``, in place of one of that drive."""
    card = json.loads((folder / 'card.json').read_text())
    others = [old for old in card['evaluations'] if old['drive'] != row['drive']]
    write_card(folder, {**card, 'evaluations': [*others, row]})


def validation_rows(run: Path, step: int) -> list[dict[str, Any]]:
    """Return the validation rows that the run logged at ``step``."""
    lines = (run / 'metrics.jsonl').read_text().splitlines()
    rows = {}
    for row in map(json.loads, lines):
        if row['step'] == step and 'validation' in row:
            rows[row['validation']] = row
    return list(rows.values())


def render(card: dict[str, Any]) -> str:
    """Render the card as Markdown."""
    data = [f'- {entry}: ' + next((text for start, text in _DATA.items()
                                   if entry.startswith(start)), 'described by whoever trained it')
            for entry in card['trained_on']]
    held_out = [f'| {row["validation"]} | {row["frames"]} | {row["abs_rel"]:.3f} | '
                f'{row["d1"]:.3f} | {row["within_1_sigma"]:.2f} |' for row in card['held_out']]
    evaluations = [f'| {row["drive"]} | {row["frames"]} | {row["abs_rel"]:.3f} | '
                   f'{row["rmse"]:.2f} | {row["d1"]:.3f} | {row["within_1_sigma"]:.2f} |'
                   for row in card['evaluations']]
    use = ('**Non-commercial use only**: the data below oblige the weights to it.'
           if card['licence'] == NON_COMMERCIAL else f'Licence {card["licence"]}.')
    what, limits = _KINDS[card['kind']]
    factors = ' and '.join(f'{factor} ({mode.replace("_", " ")})'
                           for mode, factor in card['sigma_scale'].items())
    return '\n'.join([
        f'# Model card: {card["name"]}', '',
        f'{use} Licence of the weights: {card["licence"]}.', '',
        f'{what} Encoder {card["encoder"]}, {card["parameters_m"]} M parameters, {card["steps"]} '
        f'steps. `{card["file"]}`: {card["bytes"] / 1e6:.1f} MB, opset {card["opset"]}, sha256 '
        f'`{card["sha256"]}`; relative difference to torch {card["torch"]} on the golden inputs: '
        f'{card["parity"]:.0e}.', '',
        '## Data', '', *data, '',
        '## Figures', '',
        'Held-out ends of the training sequences (same scenes, later frames: these say that it '
        'learned, not how it does elsewhere); metric, no scaling; the last column is the share '
        'within one sigma before its calibration:', '',
        '| frames of | frames | AbsRel | d1 | within 1 sigma |', '|---|---|---|---|---|',
        *held_out, '',
        'Drives that it was neither trained nor tuned on (metric, no scaling, 80 m):', '',
        '| drive | frames | AbsRel | RMSE m | d1 | within 1 sigma |', '|---|---|---|---|---|---|',
        *evaluations, '',
        f'Sigma was then multiplied by {factors}, which makes 68 % of the errors fall within it '
        f'on {card["sigma_from"]}.', '',
        '## How it was made', '', '```', *card['commands'], '```', '',
        '## Limits', '', limits, ''])


_LIMITS = ('Trained on a few hundred real frames. Depth outside streets seen from a car and rooms '
           'is a guess; trust sigma, and check against a sensor before anything depends on it.')
_KINDS = {  # kind of a model -> what it does, its limits
    'single_frame': ('Single image and intrinsics to metric depth and sigma.',
                     f'{_LIMITS} Single frame: odometry does not enter it.'),
    'clip_prior': ('Image, intrinsics and the features of a sentence about the scene to metric '
                   'depth and sigma; `prompts.npz` holds the sentences that it can be told.',
                   f'{_LIMITS} Single frame: odometry does not enter it. Words that do not fit '
                   'the scene may change the scale of depth.'),
    'posed': ('Image, intrinsics and up to two earlier frames with the camera motion since to '
              'metric depth and sigma; without a usable motion, the image alone.',
              f'{_LIMITS} Matching needs a camera that moves, and a scene that stands still; near '
              'the direction of travel, on moving things and without motion the single image '
              'decides.'),
}
