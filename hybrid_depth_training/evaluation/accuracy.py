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
"""The project's accuracy, measured by one command: out/accuracy.json and docs/accuracy.md."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrid_depth.errors import DriveError
from hybrid_depth.models import FOLDER, read_card, shipped_models
from hybrid_depth_training.deploy.card import add_evaluation
from hybrid_depth_training.evaluation.evaluate import evaluate, write
from hybrid_depth_training.evaluation.priors import real_sources

HOLD_OUT = 0.1  # of the indoor recording, at its end, as the training configurations have it


def accuracy(street: str, room: str, models: Sequence[str] = (), prior_from: Path | None = None,
             json_path: Path | None = None,
             markdown_path: Path | None = None) -> list[dict[str, Any]]:
    """
    Measure priors, plane sweep and ``models`` (default: all shipped) on a street and indoors.

    Every frame with truth of ``street``, the held-back end of ``room``. Writes JSON and Markdown
    where asked to, the Markdown only when nothing was absent, and the figures of shipped models
    onto their cards, of drives that they did not learn from. What is absent is printed; raises
    DriveError where both drives are.
    """
    drives = {'street': (street, 1.0), 'room': (room, HOLD_OUT)}
    absent = [path for path, _ in drives.values() if not Path(path).exists()]
    for path in absent:
        print(f'[accuracy] absent: {path}; its rows are left out')
    if len(absent) == len(drives):
        raise DriveError(f'neither {street} nor {room} is there; name drives with ground truth: '
                         'make accuracy ACCURACY_STREET=path ACCURACY_ROOM=path')
    if prior_from is not None:
        gone = [s['path'] for s in real_sources(prior_from) if not Path(s['path']).exists()]
        for path in gone:
            print(f'[accuracy] absent: {path}, of {prior_from}; "position only" is left out')
        absent += gone
        prior_from = None if gone else prior_from
    names = list(models) or shipped_models()
    rows = []
    for kind, (path, hold_out) in drives.items():
        if path not in absent:
            rows += evaluate(path, names, prior_from, kind=kind, hold_out=hold_out)
    write(rows, json_path, None if absent else markdown_path)
    for row in rows:
        if row['name'] in shipped_models() and not _has_learned_from(row['name'], row['drive']):
            add_evaluation(FOLDER / row['name'], {
                **{key: row[key] for key in ('drive', 'frames', 'abs_rel', 'rmse', 'd1')},
                'within_1_sigma': row['coverage_1sigma']})
    return rows


def _has_learned_from(model: str, drive: str) -> bool:
    """Return whether ``drive`` is in the training data: cards show drives that are not."""
    return any(entry.split()[-1] == drive for entry in read_card(model)['trained_on'])
