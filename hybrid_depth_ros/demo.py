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
Play a drive through the real node and write down what came out.

Three processes on a ROS domain of their own: the depth node, the player, and the recorder, which
knows the node only by its topics. Ends by itself; exit status 0 when every published frame came
out right, 1 when anything was lost or wrong, 2 when it could not be tried.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path
import random
import shutil
import signal
import sys
import time

from hybrid_depth.contract import read_spec
from hybrid_depth.drives import open_drive
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.models import find_model
from hybrid_depth_ros.processes import Children, signals_as_exceptions, Stopped

REPOSITORY = Path(__file__).resolve().parent.parent
# base_link -> optical frame, x y z w: what the player publishes on /tf_static where it can
OPTICAL_ROTATION = '[-0.5, 0.5, -0.5, 0.5]'
FRAME_TOLERANCE = 1.5  # a slow machine may take that many times the drive's own length
START_S = 120.0


def config_file(name: str) -> Path:
    """Return a file of config/, from the repository or from where the package is installed."""
    in_repository = REPOSITORY / 'config' / name
    if in_repository.is_file():
        return in_repository
    from ament_index_python.packages import get_package_share_directory
    return Path(get_package_share_directory('hybrid_depth_ros')) / 'config' / name


def isolated_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in which ROS sees only the demo, and large messages arrive."""
    result = dict(environment)
    result.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    # 1 to 101 keep every DDS port below Linux' ephemeral range
    result['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 101))
    profile = str(config_file('fastdds_shm.xml'))
    if result.get('ROS_DISTRO') == 'humble':
        result['ROS_LOCALHOST_ONLY'] = '1'
        result['FASTRTPS_DEFAULT_PROFILES_FILE'] = profile
    else:
        result['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        result['FASTDDS_DEFAULT_PROFILES_FILE'] = profile
    result['PYTHONUNBUFFERED'] = '1'
    paths = [str(REPOSITORY), result.get('PYTHONPATH', '')]
    result['PYTHONPATH'] = os.pathsep.join(path for path in paths if path)
    return result


def commands(arguments: argparse.Namespace, report: Path) -> dict[str, list[str]]:
    """Return the command of each process by its name."""
    def module(name: str, *more: str) -> list[str]:
        return [sys.executable, '-m', f'hybrid_depth_ros.{name}', *more]
    return {
        'node': module(
            'depth_node', '--ros-args', '--params-file', str(config_file('depth_node.yaml')),
            '-p', f'model:={arguments.model}', '-p', f'backend:={arguments.backend}',
            '-p', f'extrinsic.rotation:={OPTICAL_ROTATION}'),
        'recorder': module(
            'recorder', '--drive', arguments.drive, '--out', str(arguments.out),
            '--limit', str(arguments.limit), '--player-report', str(report)),
        'player': module(
            'player', '--drive', arguments.drive, '--rate', str(arguments.rate),
            '--limit', str(arguments.limit), '--wait-listeners', '2',
            '--wait-active', 'hybrid_depth', '--settle', '3', '--report', str(report)),
    }


def supervise(children: Children, limit_s: float) -> str:
    """Wait until the recorder has ended; return what went wrong, empty where nothing did."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if children.status('recorder') is not None:
            return ''
        if children.status('node') is not None:
            return f'the node ended early with status {children.status("node")}'
        if children.status('player'):
            return f'the player failed with status {children.status("player")}'
        time.sleep(0.1)
    return f'not finished after {limit_s:.0f} s'


def run(arguments: argparse.Namespace) -> int:
    """Start the three processes and see them through. Returns the exit status."""
    drive = open_drive(arguments.drive)
    spec = read_spec(find_model(arguments.model))
    count = min(len(drive), arguments.limit or len(drive))
    span_s = (drive.stamps_ns[count - 1] - drive.stamps_ns[0]) * 1e-9 / arguments.rate
    print(f'[demo] {drive.name}: {count} frames, {span_s:.1f} s; model {spec.name}', flush=True)
    print('[demo] starting; images are read, or rendered, before the first is played', flush=True)
    report = arguments.out / 'played.json'
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ('summary.json', 'montage.png', 'demo.rrd', report.name):
        (arguments.out / name).unlink(missing_ok=True)
    shutil.rmtree(arguments.out / 'log', ignore_errors=True)
    environment = isolated_environment(dict(os.environ))
    with Children(environment, arguments.out / 'log') as children:
        for name, command in commands(arguments, report).items():
            children.start(name, command, is_shown=name == 'recorder')
        summary = arguments.out / 'summary.json'
        wrong = supervise(children, START_S + FRAME_TOLERANCE * span_s + 2.0 * count)
        if not wrong and not summary.is_file():
            wrong = f'the recorder ended with status {children.status("recorder")}'
        if wrong:
            return failed(children, wrong)
        children.stop('node')
        if children.status('node') != 0:
            return failed(children, f'the node ended with status {children.status("node")} '
                                    'when it was asked to stop')
        return int(children.status('recorder') or 0)


def failed(children: Children, what: str) -> int:
    """Print what went wrong and the last lines of the logs."""
    print(f'[demo] FAILED: {what}', file=sys.stderr)
    for name in ('node', 'player', 'recorder'):
        lines = children.log(name).read_text(errors='replace').splitlines()[-15:]
        print(f'--- {children.log(name)}', *lines, sep='\n', file=sys.stderr)
    return 1


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m hybrid_depth_ros.demo',
                                     description='Play a drive through the depth node.')
    parser.add_argument('--drive', default='synthetic',
                        help="folder, recording, 'synthetic' or 'synthetic:SEED'")
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='folder to write')
    parser.add_argument('--model', default='compact', help='shipped model, or an .onnx file')
    parser.add_argument('--backend', default='auto', help='runtime; auto takes the first')
    parser.add_argument('--rate', type=float, default=1.0, help='2 plays twice as fast')
    parser.add_argument('--limit', type=int, default=0, help='frames to play; 0 means all')
    arguments = parser.parse_args(argv)
    if not 0.01 <= arguments.rate <= 100.0:
        parser.error(f'--rate is {arguments.rate}; expected 0.01 to 100')
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the demo; see the module for the exit status."""
    arguments = parse_arguments(argv)
    try:
        with signals_as_exceptions():
            return run(arguments)
    except HybridDepthError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('demo: stopped', file=sys.stderr)
        return 128 + signal.SIGINT
    except Stopped as stopped:
        print(f'demo: {stopped}', file=sys.stderr)
        return 128 + stopped.number


if __name__ == '__main__':
    sys.exit(main())
