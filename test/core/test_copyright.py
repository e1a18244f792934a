# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
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
HEADER = ('# Copyright 2026 The hybrid_depth_ros authors',
          '# SPDX-License-Identifier: Apache-2.0')
FOLDERS = ('hybrid_depth', 'hybrid_depth_ros', 'hybrid_depth_training', 'launch', 'test')


def sources() -> list[Path]:
    return [ROOT / 'setup.py', *(path for folder in FOLDERS
                                 for path in sorted((ROOT / folder).rglob('*.py')))]


def test_every_source_has_the_header() -> None:
    without = [str(path.relative_to(ROOT)) for path in sources()
               if path.stat().st_size
               and tuple(path.read_text().splitlines()[:2]) != HEADER]
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
