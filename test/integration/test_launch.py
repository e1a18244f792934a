# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files under the real launch and launch_ros; skipped where those are not installed."""
from __future__ import annotations

from contextlib import suppress
import json
import os
from pathlib import Path
import random
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
    environment = dict(os.environ)
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


def finish(process: subprocess.Popen, timeout_s: float) -> str:
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
    output = finish(process, 20)
    assert process.returncode == 0, output
    assert 'process has finished cleanly' in output


def test_depth_launch_without_autostart_waits(environment):
    process = start(environment, 'depth.launch.py', 'autostart:=false')
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process, 20)
    assert 'process started' in output
    assert 'configured' not in output
    assert 'process has finished cleanly' in output


def test_depth_launch_refuses_an_unknown_backend(environment):
    process = start(environment, 'depth.launch.py', 'backend:=no_such')
    output = finish(process, 20)
    assert process.returncode != 0
    assert 'no_such' in output


def test_demo_launch_plays_records_and_ends(environment, tiny_model, tmp_path):
    process = start(environment, 'demo.launch.py', 'limit:=4', f'model:={tiny_model}',
                    'record:=true', f'out:={tmp_path}')
    output = finish(process, 90)
    assert process.returncode == 0, output
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['frames_processed'] == 4, output
    assert summary['problems'] == []
