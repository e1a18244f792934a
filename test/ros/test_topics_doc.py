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
"""docs/topics.md says what the code does."""
from __future__ import annotations

from pathlib import Path
import re

import pytest

from hybrid_depth.encodings import ENCODINGS
from hybrid_depth.runtime.serving import Serving
from hybrid_depth.types import Evidence
from hybrid_depth_ros.diagnostics import diagnostic_status, FrameStats
from hybrid_depth_ros.findings import Findings
from hybrid_depth_ros.outputs import OUTPUTS
from hybrid_depth_ros.parameters import make_settings, Parameter, PARAMETERS
from hybrid_depth_ros.pose_source import ODOMETRY_STATES, PoseSource

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / 'docs' / 'topics.md').read_text()
COUNTED_BY_THE_NODE = {'replaced', 'no_subscriber', 'model_error'}


def section(title: str) -> str:
    """Return the text under a heading, up to the next one."""
    return re.split(r'^##+ ', DOC.split(f'# {title}\n', 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(title: str) -> list[str]:
    """Return what stands in backticks in the first column of a section's table."""
    return [name for line in section(title).splitlines() if line.startswith('| `')
            for name in re.findall(r'`([^`]+)`', line.split('|')[1])]


def yaml_value(value: object) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f"'{value}'" if isinstance(value, str) else str(value)


@pytest.mark.parametrize('row', PARAMETERS, ids=lambda row: row.name)
def test_parameter(row: Parameter) -> None:
    when = 'next frame' if row.is_dynamic else 'start'
    assert (f'| `{row.name}` | `{yaml_value(row.default)}` | {row.expected() or "-"} | {when} | '
            f'{row.description} |') in section('Parameters')


def test_no_other_parameters() -> None:
    assert first_cells('Parameters') == [row.name for row in PARAMETERS]


def test_outputs() -> None:
    assert first_cells('Outputs') == [*(row.topic for row in OUTPUTS), '/diagnostics']
    for row in OUTPUTS:
        assert row.description in section('Outputs')


def test_evidence() -> None:
    rows = [[cell.strip(' `') for cell in line.split('|')[1:3]]
            for line in section('Evidence').splitlines() if re.match(r'\| \d', line)]
    assert rows == [[str(int(value)), value.name] for value in Evidence]


def test_encodings() -> None:
    assert ', '.join(f'`{name}`' for name in ENCODINGS) in section('Inputs')


def test_drop_reasons() -> None:
    code = ''.join(path.read_text() for folder in ('hybrid_depth', 'hybrid_depth_ros')
                   for path in (ROOT / folder).rglob('*.py'))
    raised = set(re.findall(r"BadFrame\(\s*'(\w+)'", code))
    assert len(raised) > 8
    # bad odometry costs a pose, not a frame
    assert set(first_cells('Drop reasons')) == raised - {'bad_odometry'} | COUNTED_BY_THE_NODE


def test_diagnostic_keys() -> None:
    stats = FrameStats()
    stats.received()
    stats.dropped('truncated')
    stats.processed(3.0, 2.0, {'total': 1.0}, 'single_frame')
    settings = make_settings({row.name: row.default for row in PARAMETERS})
    facts = {'state': '', 'enabled': '', 'model': '', 'backend': '', 'camera': '',
             **Findings().facts(),
             **Serving(None, '').facts(),  # type: ignore[arg-type]
             **PoseSource(lambda *_: None, lambda: settings, 'posed').facts()}
    sent = {entry.key for entry in diagnostic_status(
        '', '', b'\0', '', stats.snapshot(), facts).values}
    documented = set()
    for line in section('Diagnostics').splitlines():
        names = re.findall(r'`([^`]+)`', line.split('|')[1]) if line.startswith('| `') else []
        prefix = names[0].rpartition('.')[0] if names else ''
        documented |= {prefix + name if name.startswith('.') else name for name in names}
    examples = {'drops.<reason>': 'drops.truncated', 'stage_ms.<stage>': 'stage_ms.total'}
    assert {examples.get(name, name) for name in documented} == sent


def test_odometry_states() -> None:
    line = next(line for line in DOC.splitlines() if line.startswith('| `odometry.state`'))
    for state in ODOMETRY_STATES:
        assert state in line
