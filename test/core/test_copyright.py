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
What ament_copyright and ament_xmllint hold a package to, without ament.

ament_flake8 and ament_pep257 are in ruff's settings: 99 columns, order of imports, quotes and
docstrings.
"""
from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
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
"""  # ament_copyright knows licences by their text alone
FOLDERS = ('hybrid_depth', 'hybrid_depth_ros', 'hybrid_depth_training', 'launch', 'test')


def sources() -> list[Path]:
    return [ROOT / 'setup.py', *(path for folder in FOLDERS
                                 for path in sorted((ROOT / folder).rglob('*.py')))]


def test_every_source_has_the_header() -> None:
    without = [str(path.relative_to(ROOT)) for path in sources()
               if path.stat().st_size and not path.read_text().startswith(HEADER)]
    assert without == []


@pytest.mark.parametrize('path', ['package.xml', 'config/fastdds_shm.xml',
                                  'config/sros2/policy.xml'])
def test_xml_is_well_formed(path: str) -> None:
    ElementTree.parse(ROOT / path)


def test_the_package_names_its_licence_and_what_it_needs_once() -> None:
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert package.get('format') == '3'
    assert [entry.text for entry in package.iter('license')] == ['Apache-2.0']
    assert (ROOT / 'LICENSE').is_file()
    needs = [(entry.tag, entry.text) for entry in package if entry.tag.endswith('depend')]
    assert len(needs) == len(set(needs))
