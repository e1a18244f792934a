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
"""The figures of a run: one JSON row each in metrics.jsonl, and TensorBoard events beside it."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """
    Writes rows of figures; each has ``step``, and ``validation`` where it is of held-out views.

    ``step`` is where the run goes on. Rows beyond it are of steps that were lost when the run was
    killed: they are taken out, for they will be written again.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._path = run / 'metrics.jsonl'
        _drop_rows_after(self._path, step)
        self._events = SummaryWriter(run, purge_step=step + 1)

    def add(self, row: dict[str, Any]) -> None:
        with self._path.open('a') as stream:
            stream.write(json.dumps(row) + '\n')
        group = f'validation {row["validation"]}' if 'validation' in row else 'training'
        for key, value in row.items():
            if key != 'step' and isinstance(value, (int, float)):
                self._events.add_scalar(f'{group}/{key}', value, row['step'])

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            is_past = json.loads(line)['step'] <= step
        except (ValueError, KeyError):  # the run was killed while it wrote this line
            continue
        if is_past:
            kept.append(line + '\n')
    part = path.with_suffix('.part')
    part.write_text(''.join(kept))
    os.replace(part, path)
