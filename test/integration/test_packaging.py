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
"""The installed package: what ros2 run, ros2 launch and rosdep look for is where they look."""
from __future__ import annotations

from importlib import import_module
import os
from pathlib import Path
import subprocess
import sys
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'hybrid_depth_ros'


@pytest.fixture(scope='module')
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package as colcon does, without building in the repository."""
    folder = tmp_path_factory.mktemp('install')
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '-q',
         'egg_info', '--egg-base', str(folder), 'build', '--build-base', str(folder / 'build'),
         'install', '--prefix', str(folder), '--record', str(folder / 'record'),
         '--single-version-externally-managed'],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize('name', ['depth_node', 'player', 'recorder'])
def test_executables_are_where_ros2_run_looks(prefix, name):
    script = prefix / 'lib' / PACKAGE / name
    assert os.access(script, os.X_OK)
    # the interpreter of the environment that is active, not the one that built it
    assert script.read_text().splitlines()[0] == '#!/usr/bin/env python3'
    assert callable(import_module(f'{PACKAGE}.{name}').main)


def test_shared_files_are_installed(prefix):
    share = prefix / 'share'
    assert (share / 'ament_index/resource_index/packages' / PACKAGE).is_file()
    installed = {str(path.relative_to(share / PACKAGE)) for path in
                 (share / PACKAGE).rglob('*') if path.is_file()}
    assert installed >= {
        'package.xml', 'launch/depth.launch.py', 'launch/demo.launch.py', 'config/depth_node.yaml',
        'config/fastdds_shm.xml', 'rviz/depth.rviz', 'config/foxglove/depth.json',
        'config/systemd/hybrid_depth.service'}


def test_every_module_and_shipped_model_is_installed(prefix):
    site = next((prefix / 'lib').glob('python3*/site-packages'))
    for package in ('hybrid_depth', 'hybrid_depth_ros', 'hybrid_depth_training'):
        expected = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob('*')
                    if path.suffix in ('.py', '.onnx', '.npz', '.json', '.md')}
        found = {str(path.relative_to(site)) for path in (site / package).rglob('*')}
        assert expected - found == set()


def test_package_xml_is_format_3_and_lists_what_is_imported():
    root = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert root.get('format') == '3'
    assert root.findtext('license') == 'Apache-2.0'
    assert root.findtext('export/build_type') == 'ament_python'
    depends = {element.text for element in root.findall('exec_depend')}
    imported = set()
    for path in (*(ROOT / PACKAGE).glob('*.py'), *(ROOT / 'launch').glob('*.py')):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (['from'], ['import']) and len(words) > 1:
                imported.add(words[1].split('.')[0])
    keys = {'cv2': 'python3-opencv', 'numpy': 'python3-numpy', 'tf2_ros': 'tf2_ros_py'}
    ours = {'hybrid_depth', 'hybrid_depth_ros', '__future__'}
    needed = {keys.get(name, name) for name in imported - ours - sys.stdlib_module_names}
    assert needed >= {'rclpy', 'sensor_msgs', 'launch_ros', 'python3-numpy'}
    assert needed - depends == set()
    assert depends >= {'cv_bridge', 'sensor_msgs_py', 'tf2_ros_py', 'diagnostic_updater',
                       'message_filters'}


def test_versions_agree():
    version = ElementTree.parse(ROOT / 'package.xml').getroot().findtext('version')
    assert f"version='{version}'" in (ROOT / 'setup.py').read_text()
