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
"""The launch files under the real launch and launch_ros; skipped where those are not installed."""
from __future__ import annotations

from contextlib import suppress
import json
import os
from pathlib import Path
import random
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('launch_ros', reason='launch_ros is not installed: no launch file can be run')

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'hybrid_depth_ros'
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [argument.split(':=', 1) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)]))
sys.exit(service.run())
"""
MANAGED = """
from launch import LaunchDescription
from launch.actions import EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition
def generate_launch_description():
    node = LifecycleNode(
        package='hybrid_depth_ros', executable='depth_node', name='rig', namespace='robot',
        parameters=[{'autostart': False, 'model': MODEL, 'cameras': ['front', 'left']}],
        remappings=[('left/image', '/left_camera/image_rect')], output='screen')
    def ask(transition):
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node),
                                           transition_id=transition))
    return LaunchDescription([
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=[
            ask(Transition.TRANSITION_CONFIGURE)])),
        RegisterEventHandler(OnStateTransition(
            target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
            entities=[ask(Transition.TRANSITION_ACTIVATE)])),
        node])
"""


@pytest.fixture(scope='module')
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which this checkout is an installed package."""
    prefix = tmp_path_factory.mktemp('prefix')
    share = prefix / 'share'
    index = share / 'ament_index/resource_index/packages'
    index.mkdir(parents=True)
    (index / PACKAGE).touch()
    (share / PACKAGE).mkdir()
    for name, source in (('launch', 'launch'), ('config', 'config'), ('rviz', 'config/rviz')):
        (share / PACKAGE / name).symlink_to(ROOT / source)
    executables = prefix / 'lib' / PACKAGE
    executables.mkdir(parents=True)
    for name in ('depth_node', 'player', 'recorder'):
        script = executables / name
        script.write_text(f'#!{sys.executable}\nimport sys\nfrom {PACKAGE}.{name} import main\n'
                          'sys.exit(main())\n')
        script.chmod(0o755)
    # stand-ins that leave their arguments where a test finds them
    (index / 'rviz2').touch()
    (prefix / 'lib' / 'rviz2').mkdir()
    for path in (prefix / 'lib' / 'rviz2' / 'rviz2', executables / 'viewer'):
        path.write_text(f'#!{sys.executable}\nimport json, os, signal, sys\n'
                        f'part = {str(prefix / path.name)!r} + ".part"\n'
                        'open(part, "w").write(json.dumps(sys.argv[1:]))\n'
                        'os.replace(part, part[:-5] + ".json")\n'
                        'signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\n'
                        'signal.pause()\n')
        path.chmod(0o755)
    environment = dict(os.environ)
    environment['STAND_INS'] = str(prefix)
    others = environment.get('AMENT_PREFIX_PATH', sys.prefix)
    environment['AMENT_PREFIX_PATH'] = f'{prefix}{os.pathsep}{others}'
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get('PYTHONPATH')])])
    environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    environment['ROS_DOMAIN_ID'] = str(random.randint(1, 101))
    environment['ROS_LOG_DIR'] = str(prefix / 'log')
    return environment


def start(environment: dict[str, str], name: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-c', LAUNCH, str(ROOT / 'launch' / name), *arguments], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(process: subprocess.Popen, timeout_s: float = 120.0) -> str:
    try:
        return process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        pytest.fail('the launch did not end')
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_depth_launch_activates_the_node_and_ends_cleanly(environment, tiny_model):
    process = start(environment, 'depth.launch.py', f'model:={tiny_model}', 'namespace:=front',
                    'image:=/camera/image_rect', 'log_level:=info')
    lines = []
    while not any('active: images from' in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], ''.join(lines)
    assert '/camera/image_rect' in lines[-1]
    assert 'front.hybrid_depth' in lines[-1]
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 0, output
    assert 'process has finished cleanly' in output


def test_depth_launch_without_autostart_waits(environment, monkeypatch):
    from lifecycle_state import state_of
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    process = start(environment, 'depth.launch.py', 'autostart:=false')
    assert state_of('/hybrid_depth', int(environment['ROS_DOMAIN_ID'])) == 'unconfigured'
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert 'configured' not in output
    assert 'process has finished cleanly' in output


def test_depth_launch_opens_viewers(environment):
    process = start(environment, 'depth.launch.py', 'autostart:=false', 'rviz:=true',
                    'rerun:=true', 'namespace:=front', 'image:=/camera/image',
                    'image_transport:=compressed')
    written = [Path(environment['STAND_INS']) / f'{name}.json' for name in ('rviz2', 'viewer')]
    end = time.monotonic() + 120
    while not all(path.exists() for path in written) and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    rviz, viewer = (json.loads(path.read_text()) for path in written)
    assert rviz[0] == '-d', output
    assert Path(rviz[1]).is_file()
    assert '__ns:=/front' in rviz
    assert viewer[:2] == ['--image-transport', 'compressed']
    assert {'__ns:=/front', 'image:=/camera/image'} <= set(viewer)


def test_depth_launch_starts_a_dead_node_again(environment, tiny_model):
    process = start(environment, 'depth.launch.py', f'model:={tiny_model}', 'respawn:=true')
    lines = []

    def wait_for(words):
        while not any(words in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], ''.join(lines)
        return lines.pop()
    pid = int(re.search(r'pid \[(\d+)\]', wait_for('process started')).group(1))
    wait_for('active: images from')
    lines.clear()
    os.kill(pid, signal.SIGKILL)
    wait_for('process has died')
    wait_for('process started')
    wait_for('active: images from')
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 0, output


def test_a_lifecycle_node_of_launch_is_configured_and_activated(environment, tiny_model, tmp_path):
    path = tmp_path / 'managed.launch.py'
    path.write_text(f'MODEL = {str(tiny_model)!r}\n{MANAGED}')
    process = start(environment, str(path))
    lines = []
    while not any('active: images from' in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], ''.join(lines)
    assert '/robot/front/image, /left_camera/image_rect' in lines[-1]
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 0, output
    assert 'process has finished cleanly' in output


@pytest.mark.parametrize(('name', 'arguments', 'words'), [
    ('demo.launch.py', ['record:=true', 'loop:=true'], 'record:=true wants an end'),
    ('depth.launch.py', ['autostart:=false', 'rviz:=true'], "'rviz2' not found")])
def test_a_launch_that_fails_leaves_no_node_behind(environment, name, arguments, words):
    index = Path(environment['STAND_INS']) / 'share/ament_index/resource_index/packages/rviz2'
    index.unlink()
    try:
        process = start(environment, name, *arguments)
        output = finish(process)
    finally:
        index.touch()
    assert process.returncode != 0
    assert words in output
    assert '[depth_node' not in output


def test_depth_launch_refuses_an_unknown_backend(environment):
    process = start(environment, 'depth.launch.py', 'backend:=no_such')
    output = finish(process)
    assert process.returncode != 0
    assert 'no_such' in output


def test_demo_launch_plays_records_and_ends(environment, tiny_model, tmp_path):
    process = start(environment, 'demo.launch.py', 'limit:=4', f'model:={tiny_model}',
                    'record:=true', f'out:={tmp_path}')
    output = finish(process)
    assert process.returncode == 0, output
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['frames_processed'] == 4, output
    assert summary['problems'] == []
