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
"""README.md promises what is there: topics, parameters, commands, arguments, files."""
from __future__ import annotations

from pathlib import Path
import re
import shlex
import subprocess

import pytest
from test_topics_doc import yaml_value

from hybrid_depth.__main__ import _parser
from hybrid_depth_ros.outputs import OUTPUTS
from hybrid_depth_ros.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()
CODE = '\n'.join(re.findall(r'```\n(.*?)```', README, flags=re.DOTALL)).replace('\\\n', ' ')


def table(title: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    text = README.split(f'### {title}\n', 1)[1].split('\n#', 1)[0]
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


def test_topics() -> None:
    rows = {cells[0].strip('`'): cells[1:] for cells in table('Topics')}
    assert set(rows) == {'image', 'camera_info', 'odom', '/diagnostics'} | {
        output.topic for output in OUTPUTS}
    for output in OUTPUTS:
        kind, text = rows[output.topic]
        assert output.message_type.__name__ in re.findall(r'/(\w+)`', kind)  # one of several
        assert text == f'out; {output.description}'


def test_parameters() -> None:
    known = {row.name: row for row in PARAMETERS}
    rows = table('Parameters, in short')
    assert len(rows) > 5
    for name, default, _ in rows:
        assert default.strip('`') == yaml_value(known[name.strip('`')].default)


@pytest.mark.parametrize('target', sorted(set(re.findall(r'`?make (\w+)', README))))
def test_make_targets(target: str) -> None:
    make = (ROOT / 'Makefile').read_text()
    assert re.search(rf'^{target}:', make, flags=re.MULTILINE)


def test_command_lines_parse() -> None:
    lines = [line.split('#')[0] for line in CODE.splitlines() if '-m hybrid_depth ' in line]
    assert len(lines) == 3
    for line in lines:
        _parser().parse_args(shlex.split(line)[3:])


def test_launch_arguments() -> None:
    for line in CODE.splitlines():
        if 'ros2 launch' not in line:
            continue
        words = shlex.split(line, comments=True)
        source = (ROOT / 'launch' / words[3]).read_text()
        for argument in words[4:]:
            assert f"'{argument.split(':=')[0]}'" in source


def test_drop_reasons_of_the_troubleshooting_table() -> None:
    documented = (ROOT / 'docs' / 'topics.md').read_text()
    reasons = re.findall(r'drops `(\w+)`', README)
    assert len(reasons) >= 4
    for reason in reasons:
        assert f'`{reason}`' in documented


def test_accuracy_is_that_of_the_measured_table() -> None:
    measured = (ROOT / 'docs' / 'accuracy.md').read_text()
    figures = re.findall(r'\| (\d\.\d{3}) \| (\d+\.\d\d) \| (\d\.\d{3}) \|(?: [\d.]* ?\|)$',
                         README, flags=re.MULTILINE)
    assert len(figures) >= 5
    for abs_rel, rmse, d1 in figures:
        assert re.search(rf'\| {abs_rel} \| [\d.]+ \| {rmse} \| [\d.]+ \| {d1} \|', measured)


def test_links_and_files() -> None:
    for target in re.findall(r'\]\(([^)#]+)\)', README):
        if '://' not in target:
            assert (ROOT / target).exists(), target


def test_shown_picture_is_tracked() -> None:
    found = subprocess.run(['git', 'ls-files', 'docs/pictures'], cwd=ROOT, text=True,
                           capture_output=True, check=False)
    if found.returncode:
        pytest.skip('not a git checkout')
    assert 'docs/pictures/demo.png' in found.stdout.splitlines()
