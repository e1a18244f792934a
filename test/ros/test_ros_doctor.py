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
"""The doctor's lines about ROS, in environments of the test's own."""
from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybrid_depth import machine
from hybrid_depth.doctor import FAIL, Finding, OK, WARN
from hybrid_depth_ros import doctor

PROFILE = Path(__file__).resolve().parents[2] / 'config' / 'fastdds_shm.xml'
KEY = 'FASTDDS_DEFAULT_PROFILES_FILE'


def look(environment: Mapping[str, str] | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.ros_findings(environment or {})}


def test_ros_is_found_here() -> None:
    found = look()
    assert found['messages'].level == OK
    assert 'rmw_fastrtps' in found['middleware'].detail


def test_a_missing_message_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, '_REQUIRED', (*doctor._REQUIRED, 'no_such_msgs'))
    found = look()
    assert found['no_such_msgs'].level == FAIL
    assert 'ros-<distro>-no-such-msgs' in found['no_such_msgs'].mend
    assert 'middleware' not in found  # rclpy may be unfit to ask


def test_a_middleware_that_cannot_be_loaded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise RuntimeError('librmw_none.so not found')
    monkeypatch.setattr(doctor, 'import_module',
                        lambda _: SimpleNamespace(get_rmw_implementation_identifier=fail))
    assert look({'RMW_IMPLEMENTATION': 'rmw_none'})['middleware'].level == FAIL


@pytest.mark.parametrize(('environment', 'level', 'words'), [
    ({}, OK, 'ROS_DOMAIN_ID 0, discovery range SUBNET'),
    ({'ROS_DOMAIN_ID': '101', 'ROS_LOCALHOST_ONLY': '1'}, OK, '101, discovery range LOCALHOST'),
    ({'ROS_DOMAIN_ID': '102'}, WARN, 'ports'),
    ({'ROS_DOMAIN_ID': '233'}, FAIL, 'no such domain'),
    ({'ROS_DOMAIN_ID': 'mine'}, FAIL, 'no such domain'),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, WARN, 'no other process'),
])
def test_domain(environment: dict[str, str], level: str, words: str) -> None:
    finding = look(environment)['domain']
    assert finding.level == level
    assert words in finding.detail


@pytest.mark.parametrize(('text', 'level'), [
    (PROFILE.read_text(), OK),
    ('<dds/>', WARN),
    ('<a><segment_size>524288</segment_size></a>', WARN),
    ('<a><segment_size>many</segment_size></a>', WARN),
    ('<dds', WARN),
    ('<!DOCTYPE a [<!ENTITY b "c">]><a><segment_size>99999999</segment_size></a>', WARN),
])
def test_profile_for_large_messages(tmp_path: Path, text: str, level: str) -> None:
    path = tmp_path / 'profile.xml'
    path.write_text(text)
    finding = look({KEY: str(path)})['large messages']
    assert finding.level == level
    assert bool(finding.mend) == (level == WARN)


def test_other_ways_for_large_messages() -> None:
    assert look()['large messages'].level == WARN
    assert look({KEY: '/no/such/file.xml'})['large messages'].level == WARN
    assert look({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA?max_msg_size=1MB'})[
        'large messages'].level == OK
    assert look({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'})['large messages'].level == OK


def test_limits_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, 'receive_buffer_limit', lambda: 212992)
    monkeypatch.setattr(os, 'statvfs', lambda _: SimpleNamespace(
        f_bavail=64 << 8, f_blocks=64 << 8, f_frsize=4096))  # 64 MiB, as in a container
    found = look()
    assert found['network buffers'].level == WARN
    assert 'rmem_max' in found['network buffers'].mend
    assert found['shared memory'].level == WARN
    assert '--ipc=host' in found['shared memory'].mend
    monkeypatch.setattr(machine, 'receive_buffer_limit', lambda: 26214400)
    assert look()['network buffers'].level == OK


def test_segments_of_other_users_are_a_warning(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, '_SHM', tmp_path)
    (tmp_path / 'fastdds_1a2b').touch()
    assert '; DDS segments' not in look()['shared memory'].detail
    monkeypatch.setattr(os, 'geteuid', lambda: 987654)
    finding = look()['shared memory']
    assert finding.level == WARN
    assert f'users {os.getuid()}:' in finding.detail


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(doctor, 'examine', lambda: [Finding('numpy', OK, '2'),
                                                    Finding('ROS 2', OK, 'see the other one')])
    assert doctor.main(['--json', '--ros-args', '-r', '__node:=doctor']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row['name'] for row in rows][:2] == ['numpy', 'messages']
    monkeypatch.setattr(doctor, 'examine', lambda: [Finding('numpy', FAIL, 'lost', 'pip')])
    assert doctor.main([]) == 1
