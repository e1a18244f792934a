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
"""The service file and the Dockerfile name what is there, and keep the node in bounds."""
from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path
import re
import shutil
import subprocess

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / 'config' / 'systemd' / 'hybrid_depth.service'
EXECUTABLES = set(re.findall(r"'(\w+) = hybrid_depth_ros", (ROOT / 'setup.py').read_text()))


def service() -> ConfigParser:
    parser = ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(SERVICE)
    return parser


def test_the_service_starts_our_node_again_and_ends_it_in_order():
    section = service()['Service']
    package, executable = re.search(r'ros2 run (\w+) (\w+)', section['ExecStart']).groups()
    assert package == 'hybrid_depth_ros'
    assert executable in EXECUTABLES
    assert (section['Restart'], section['KillSignal']) == ('always', 'SIGINT')
    assert float(section['RestartSec']) < 2
    limit = service()['Unit']
    assert int(limit['StartLimitBurst']) * float(section['RestartSec']) \
        < int(limit['StartLimitIntervalSec'])  # or it would never be reached


def test_the_service_has_no_rights_it_does_not_need():
    section = service()['Service']
    assert section['User'] != 'root'
    assert section['CapabilityBoundingSet'] == ''
    assert section['ProtectSystem'] == 'strict'
    for key in ('NoNewPrivileges', 'ProtectHome', 'PrivateTmp', 'ProtectKernelTunables',
                'ProtectKernelModules', 'RestrictNamespaces', 'RestrictSUIDSGID'):
        assert section[key] == 'true'
    # what would take away the GPU, the compiled code of the runtimes, and DDS
    assert not {'PrivateDevices', 'MemoryDenyWriteExecute', 'PrivateIPC',
                'PrivateNetwork'} & set(section)


@pytest.mark.skipif(shutil.which('systemd-analyze') is None, reason='systemd is not installed')
def test_systemd_understands_the_service():
    done = subprocess.run(['systemd-analyze', 'verify', str(SERVICE)], capture_output=True,
                          text=True, timeout=30)
    about_it = [line for line in done.stderr.splitlines() if SERVICE.name in line]
    assert about_it == []


def test_the_image_is_made_of_what_is_there():
    text = (ROOT / 'docker' / 'Dockerfile.cpu').read_text()
    assert 'config/fastdds_shm.xml' in text
    assert (ROOT / 'config' / 'fastdds_shm.xml').is_file()
    assert (ROOT / 'launch' / re.search(r'"([\w.]+\.launch\.py)"', text).group(1)).is_file()
    assert re.search(r'^USER (?!root)', text, re.MULTILINE)
    assert {'.venv', 'runs', 'out'} <= set((ROOT / '.dockerignore').read_text().split())


def test_the_page_names_what_is_there():
    text = (ROOT / 'docs' / 'deploy.md').read_text()
    assert set(re.findall(r'ros2 run hybrid_depth_ros (\w+)', text)) <= EXECUTABLES
    launch = (ROOT / 'launch' / 'depth.launch.py').read_text()
    for name in re.findall(r'`(\w+):=\w+`', text):
        assert f"DeclareLaunchArgument('{name}'" in launch
    for path in re.findall(r'\]\(\.\./([^)]+)\)', text):
        assert (ROOT / path).is_file()
