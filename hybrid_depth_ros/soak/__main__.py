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
Throw faults at the running node for a stated time and write down how it took them.

Exit status 0 when nothing went wrong, 1 when something did, 2 when it could not be tried.
"""
from __future__ import annotations

import argparse
from importlib.util import find_spec
import os
from pathlib import Path
import random
import signal
import sys
import tempfile
import time

import rclpy
from rclpy.signals import SignalHandlerOptions

from hybrid_depth_ros.demo import isolated_environment
from hybrid_depth_ros.processes import Children, signals_as_exceptions, Stopped
from hybrid_depth_ros.soak import campaign, fuzz, report
from hybrid_depth_ros.soak.driver import Driver
from hybrid_depth_ros.soak.faults import FAULTS
from hybrid_depth_ros.soak.oracle import Oracle
from hybrid_depth_ros.soak.world import World

FUZZ_SHARE = 0.1  # of the time


def soak(arguments: argparse.Namespace) -> int:
    """Run the soak and the fuzzer, write the reports. Returns the exit status."""
    environment = isolated_environment(dict(os.environ))
    os.environ.update(environment)  # before rclpy starts here: the driver is on the same domain
    start = time.monotonic()
    rng = random.Random(arguments.seed)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    driver = Driver(Oracle())
    try:
        with tempfile.TemporaryDirectory(prefix='hybrid_depth_soak_') as folder, \
                Children(environment, arguments.out / 'soak') as children:
            world = World(children, driver, rng, Path(folder))
            print(f'[soak] {len(arguments.kinds)} kinds of faults for {arguments.seconds:.0f} s, '
                  f'seed {arguments.seed}', flush=True)
            tally = campaign.run(world, arguments.kinds, arguments.seconds)
            children.stop('node')
            if children.status('node') != 0:
                world.crashes.append(f'the node ended with status {children.status("node")} when '
                                     'the soak was over')
    finally:
        driver.close()
        rclpy.try_shutdown()
    seconds = time.monotonic() - start
    inputs, failures = fuzz.run(max(1.0, FUZZ_SHARE * arguments.seconds), arguments.seed)
    tally.problems += failures
    figures = report.reliability(world, tally, seed=arguments.seed, seconds=seconds,
                                 fuzz_inputs=inputs)
    found = report.problems(world, tally, figures)
    report.write_json(arguments.out / 'reliability.json', figures)
    if arguments.markdown:
        command = f'python -m hybrid_depth_ros.soak --seconds {arguments.seconds:g} ' \
                  f'--seed {arguments.seed}'
        arguments.markdown.write_text(
            report.markdown(figures, world, tally, found, inputs, command))
    for key, value in figures.items():
        print(f'[soak] {key}: {value}')
    for text in found[:40]:
        print(f'[soak] PROBLEM: {text}', file=sys.stderr)
    return 1 if found else 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m hybrid_depth_ros.soak',
                                     description='Throw faults at the running depth node.')
    parser.add_argument('--seconds', type=float, default=60.0, help='how long')
    parser.add_argument('--seed', type=int, default=0, help='of the order and details of faults')
    parser.add_argument('--kinds', nargs='+', choices=FAULTS, default=list(FAULTS),
                        help='faults to inject; default: all')
    parser.add_argument('--out', type=Path, default=Path('out'),
                        help='folder for reliability.json and the log')
    parser.add_argument('--markdown', type=Path, help='also write the report for people there')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the soak; see the module for the exit status."""
    arguments = parse_arguments(argv)
    if find_spec('onnx') is None:
        print('soak: onnx is not installed, so no model can be made; pip install onnx',
              file=sys.stderr)
        return 2
    try:
        with signals_as_exceptions():
            return soak(arguments)
    except KeyboardInterrupt:
        print('soak: stopped', file=sys.stderr)
        return 128 + signal.SIGINT
    except Stopped as stopped:
        print(f'soak: {stopped}', file=sys.stderr)
        return 128 + stopped.number


if __name__ == '__main__':
    sys.exit(main())
