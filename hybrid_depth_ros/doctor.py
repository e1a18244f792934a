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
What the node needs, besides what the core's doctor looks at: ``ros2 run hybrid_depth_ros doctor``.

Imports nothing of ROS before it has looked whether it is there, and starts no node.
"""
from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from itertools import islice
import os
from pathlib import Path
import sys
from xml.etree import ElementTree

from hybrid_depth import machine
from hybrid_depth.doctor import examine, FAIL, Finding, Need, OK, package, tell, WARN
from hybrid_depth_ros.optional_packages import OPTIONAL_PACKAGES

_INSTALL = 'source /opt/ros/<distro>/setup.bash, or: sudo apt-get install ros-<distro>-{}'
_REQUIRED = ('rclpy', 'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs', 'lifecycle_msgs',
             'nav_msgs', 'rcl_interfaces', 'sensor_msgs', 'std_msgs', 'std_srvs')
_APT_NAMES = {'tf2_ros': 'tf2-ros-py'}  # where it is not the name with hyphens
_IMAGE_BYTES = 1920 * 1080 * 3  # what has to pass in one message
_PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
_PROFILE = '<share of hybrid_depth_ros>/config/fastdds_shm.xml'
_MAX_PROFILE_BYTES = 1 << 20
_SAFE_DOMAIN, _LAST_DOMAIN = 101, 232  # whose ports are free everywhere, and that exist at all
_SHM = Path('/dev/shm')
_SEGMENTS = ('fastdds_*', 'fastrtps_*')
_MAX_SEGMENTS = 1000


def ros_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at packages, middleware, domain, shared memory and kernel limits."""
    findings = [package(_need(name, 'no node', is_required=True)) for name in _REQUIRED]
    if all(finding.level == OK for finding in findings):
        findings = [Finding('messages', OK, ', '.join(_REQUIRED))]
        findings.append(_middleware(environment))
    optional = {**OPTIONAL_PACKAGES, 'launch_ros': 'no launch files'}
    findings += [package(_need(name, loss)) for name, loss in optional.items()]
    return [*findings, _domain(environment), _large_messages(environment), _shared_memory(),
            _receive_buffer()]


def _need(name: str, loss: str, is_required: bool = False) -> Need:
    return Need(name, loss, _INSTALL.format(_APT_NAMES.get(name, name.replace('_', '-'))),
                is_required=is_required)


def _middleware(environment: Mapping[str, str]) -> Finding:
    wanted = environment.get('RMW_IMPLEMENTATION', '')
    distribution = environment.get('ROS_DISTRO', 'unnamed: ROS_DISTRO is not set')
    try:
        found = import_module('rclpy').get_rmw_implementation_identifier()
    except Exception as error:  # of the loader: a library that is missing or of another ROS
        return Finding('middleware', FAIL, f'{wanted or "none"}: {error}',
                       _INSTALL.format('rmw-fastrtps-cpp'))
    return Finding('middleware', OK, f'{found}; distribution {distribution}')


def _domain(environment: Mapping[str, str]) -> Finding:
    text = environment.get('ROS_DOMAIN_ID', '') or '0'
    reach = environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '')
    if not reach and environment.get('ROS_LOCALHOST_ONLY', '0') == '1':
        reach = 'LOCALHOST'
    detail = f'ROS_DOMAIN_ID {text}, discovery range {reach or "SUBNET"}'
    mend = f'export ROS_DOMAIN_ID=<0 to {_SAFE_DOMAIN}>, the same in every process'
    if not text.isdecimal() or int(text) > _LAST_DOMAIN:
        return Finding('domain', FAIL, f'{detail}: there is no such domain', mend)
    if int(text) > _SAFE_DOMAIN:
        return Finding('domain', WARN, f'{detail}: its ports may be taken by other programs', mend)
    if reach == 'OFF':
        return Finding('domain', WARN, f'{detail}: no other process is found',
                       'unset ROS_AUTOMATIC_DISCOVERY_RANGE')
    return Finding('domain', OK, detail)


def _large_messages(environment: Mapping[str, str]) -> Finding:
    name, mend = 'large messages', f'export {_PROFILE_VARIABLES[0]}={_PROFILE}'
    other = environment.get('RMW_IMPLEMENTATION', '')
    if other and 'fastrtps' not in other:
        return Finding(name, OK, f'left to {other}')
    if environment.get('FASTDDS_BUILTIN_TRANSPORTS', '').startswith('LARGE_DATA'):
        return Finding(name, OK, 'FASTDDS_BUILTIN_TRANSPORTS is LARGE_DATA')
    profile = next((environment[key] for key in _PROFILE_VARIABLES if environment.get(key)), '')
    if not profile:
        return Finding(name, WARN, "Fast DDS' default shared memory of 512 KiB: images arrive "
                       'late, or not at all when best effort', mend)
    try:
        segment = _segment_bytes(Path(profile))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return Finding(name, WARN, f'{profile} is no profile: {error}; Fast DDS goes on without',
                       mend)
    if segment < _IMAGE_BYTES:
        return Finding(name, WARN, f'{profile} has a shared memory segment of {segment} bytes; an '
                       f'image may have {_IMAGE_BYTES}', mend)
    return Finding(name, OK, f'{profile}: shared memory segment of {segment / 2 ** 20:.0f} MiB')


def _segment_bytes(path: Path) -> int:
    """Return the largest segment_size of a Fast DDS profile, 0 where it has none."""
    if path.stat().st_size > _MAX_PROFILE_BYTES:
        raise ValueError(f'it has more than {_MAX_PROFILE_BYTES} bytes')
    text = path.read_text(encoding='utf-8')
    if '<!ENTITY' in text:  # a few lines of those can grow to gigabytes
        raise ValueError('it declares entities')
    sizes = (element.text or '' for element in ElementTree.fromstring(text).iter()
             if element.tag.rpartition('}')[2] == 'segment_size')
    return max((int(size) for size in sizes), default=0)


def _shared_memory() -> Finding:
    try:
        status = os.statvfs(_SHM)
    except OSError as error:
        return Finding('shared memory', WARN, f'{_SHM}: {error}', 'mount a tmpfs there')
    free, total = (blocks * status.f_frsize / 2 ** 20
                   for blocks in (status.f_bavail, status.f_blocks))
    detail = f'{_SHM}: {free:.0f} of {total:.0f} MiB free'
    if others := _other_users():
        return Finding('shared memory', WARN, f'{detail}; DDS segments of users {others}: with '
                       'shared memory no message passes between users',
                       'run all nodes as one user, or: export FASTDDS_BUILTIN_TRANSPORTS=UDPv4')
    if free < 256:  # each process has a segment of 64 MiB by our profile
        return Finding('shared memory', WARN, f'{detail}; every process takes 64 by the profile',
                       'docker run --ipc=host, or --shm-size=1g; remains of killed processes: '
                       'fastdds shm clean')
    return Finding('shared memory', OK, detail)


def _other_users() -> str:
    """Return the numbers of the users, other than ours, who have segments of Fast DDS."""
    users = set()
    for path in islice((path for kind in _SEGMENTS for path in _SHM.glob(kind)), _MAX_SEGMENTS):
        with suppress(OSError):  # it has gone meanwhile
            users.add(path.stat().st_uid)
    return ', '.join(str(user) for user in sorted(users - {os.geteuid()}))


def _receive_buffer() -> Finding:
    limit = machine.receive_buffer_limit()
    if limit is None:
        return Finding('network buffers', WARN, 'net.core.rmem_max cannot be read')
    detail = f'net.core.rmem_max is {limit}'
    if limit < _IMAGE_BYTES:
        return Finding('network buffers', WARN, f'{detail}, less than an image: images from other '
                       'machines may be lost', 'sudo sysctl -w net.core.rmem_max=26214400, and in '
                       '/etc/sysctl.d to keep it')
    return Finding('network buffers', OK, detail)


def main(arguments: list[str] | None = None) -> int:
    """Print the core's findings and those about ROS; 1 = the node cannot work, else 0."""
    parser = argparse.ArgumentParser(prog='doctor', description='What the depth node needs: what '
                                     'is there, what is missing, and what mends it.')
    parser.add_argument('--json', action='store_true', help='print JSON')
    options, _ = parser.parse_known_args(arguments)  # launch adds --ros-args
    core = [finding for finding in examine() if finding.name != 'ROS 2']
    return tell([*core, *ros_findings()], options.json)


if __name__ == '__main__':
    sys.exit(main())
