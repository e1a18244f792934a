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
"""Transitions of the node, in process and by service, and the process around it."""
from __future__ import annotations

import gc
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time
from typing import Any
import weakref

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lifecycle_state import state_of
from node_bench import Bench, FakePipeline
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_messages import camera_info
from sensor_msgs.msg import Image

from hybrid_depth.errors import BackendUnavailable

ROOT = Path(__file__).resolve().parents[2]
SUCCESS = TransitionCallbackReturn.SUCCESS
pytestmark = pytest.mark.usefixtures('ros')


def inference_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate()
            if thread.name == 'hybrid_depth_inference']


def test_any_number_of_cycles_without_leaks(bench: Bench) -> None:
    node = bench.node
    bench.listen('depth/image')
    gone = []
    for cycle in range(3):
        assert node.trigger_configure() == SUCCESS
        gone.append(weakref.ref(bench.pipeline))
        for _ in range(2):
            assert node.trigger_activate() == SUCCESS
            assert len(inference_threads()) == 1
            bench.until(lambda: bench.images.get_subscription_count() == 1
                        and bench.infos.get_subscription_count() == 1)
            bench.infos.publish(camera_info(focal=100.0 + cycle))
            bench.until(lambda: node._resources.cameras[0].source.state is not None)
            bench.send_and_wait()
            assert not bench.pipeline.is_free
            assert node.trigger_deactivate() == SUCCESS
            assert bench.pipeline.is_free
            assert not bench.pipeline.is_closed
            assert inference_threads() == []
            bench.until(lambda: bench.images.get_subscription_count() == 0)
        assert node.trigger_cleanup() == SUCCESS
        assert bench.pipelines.pop().is_closed
    bench.spin(0.1)  # the executor itself keeps what it called last
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    assert node.trigger_shutdown() == SUCCESS
    assert node.state == 'finalized'


def test_transitions_by_service(bench: Bench) -> None:
    client = bench.client.create_client(ChangeState, '/hybrid_depth/change_state')
    bench.until(client.service_is_ready)
    for transition, state in (
            (Transition.TRANSITION_CONFIGURE, 'inactive'),
            (Transition.TRANSITION_ACTIVATE, 'active'),
            (Transition.TRANSITION_ACTIVE_SHUTDOWN, 'finalized')):
        request = ChangeState.Request()
        request.transition.id = transition
        answer = client.call_async(request)
        bench.until(answer.done)
        assert answer.result().success
        assert bench.node.state == state
    assert inference_threads() == []
    assert bench.pipeline.is_closed


def test_inactive_node_publishes_nothing_but_diagnostics(bench: Bench) -> None:
    bench.listen('depth/image')
    bench.diagnosed(lambda status, values: values['state'] == 'unconfigured'
                    and status.level == b'\0')
    assert bench.node.trigger_configure() == SUCCESS
    bench.diagnosed(lambda status, values: values['state'] == 'inactive'
                    and status.level == b'\0')
    assert bench.images.get_subscription_count() == 0


def test_deactivating_while_computing_lets_the_frame_finish(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    bench.pipeline.delay_s = 0.3
    bench.send()
    bench.until(lambda: len(bench.pipeline.frames) == 1)
    assert bench.node.trigger_deactivate() == SUCCESS
    assert inference_threads() == []
    assert bench.node.trigger_cleanup() == SUCCESS


@pytest.mark.parametrize(('error', 'state'), [
    (BackendUnavailable('no runtime here'), 'unconfigured'),
    (ZeroDivisionError('a bug'), 'unconfigured'),
])
def test_failing_to_configure_says_why(error: Exception, state: str,
                                       capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> FakePipeline:
        raise error
    bench = Bench(fail)
    try:
        assert bench.node.trigger_configure() != SUCCESS
        assert bench.node.state == state
        bench.diagnosed(lambda status, _: status.level == b'\2' and str(error) in status.message)
    finally:
        bench.close()
    log = capfd.readouterr().err
    assert str(error) in log
    assert ('Traceback' in log) is isinstance(error, ZeroDivisionError)


def test_bad_qos_override_fails_to_configure() -> None:
    bench = Bench(**{'qos_overrides./hybrid_depth/points.publisher.reliability': 'perhaps'})
    try:
        assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert 'perhaps' in bench.node.failure
        assert bench.pipeline.is_closed
    finally:
        bench.close()


def test_qos_override_acts_and_a_mismatch_is_explained(capfd: pytest.CaptureFixture[str]) -> None:
    name = 'qos_overrides./image.subscription.reliability'
    bench = Bench(**{name: 'reliable'})
    try:
        best_effort = bench.client.create_publisher(
            Image, 'image', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        assert bench.node.start()
        bench.listen('depth/image')
        log = ''

        def explained() -> bool:
            nonlocal log
            log += capfd.readouterr().err
            return f'{name}:=best_effort' in log
        bench.until(explained)
        assert 'reliability of this subscription is reliable' in log
        assert '/client: best_effort' in log
        assert best_effort.get_subscription_count() == 0
    finally:
        bench.close()


@pytest.mark.parametrize(('override', 'asked', 'words'), [
    ({'qos_overrides./hybrid_depth/depth/image.publisher.reliability': 'best_effort'},
     {'reliability': ReliabilityPolicy.RELIABLE},
     ['reliability of this publisher is best_effort', '/client: reliable',
      'qos_overrides./hybrid_depth/depth/image.publisher.reliability:=reliable']),
    ({}, {'durability': DurabilityPolicy.TRANSIENT_LOCAL},
     ['durability of this publisher is volatile', '/client: transient_local',
      'use durability volatile on the other side']),
])
def test_mismatch_of_an_output_is_explained(
        capfd: pytest.CaptureFixture[str], override: dict[str, str], asked: dict[str, Any],
        words: list[str]) -> None:
    bench = Bench(**override)
    try:
        assert bench.node.start()
        bench.client.create_subscription(Image, '/hybrid_depth/depth/image', lambda _: None,
                                         QoSProfile(depth=1, **asked))
        log = ''

        def explained() -> bool:
            nonlocal log
            log += capfd.readouterr().err
            return all(word in log for word in words)
        bench.until(explained)
        # such a subscriber counts for nothing
        assert bench.images.get_subscription_count() == 0
    finally:
        bench.close()


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, 'ROS_DOMAIN_ID': str(2 + os.getpid() % 100), 'PYTHONPATH': str(ROOT),
            'PYTHONUNBUFFERED': '1'}


def start_process(environment: dict[str, str], *parameters: str) -> subprocess.Popen[str]:
    pairs = [word for parameter in parameters for word in ('-p', parameter)]
    return subprocess.Popen(
        [sys.executable, '-m', 'hybrid_depth_ros.depth_node', '--ros-args', *pairs],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read the log up to the line with ``words``, or to its end."""
    text = ''
    assert process.stdout is not None
    for line in process.stdout:
        text += line
        if words in line:
            break
    return text


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_process_starts_itself_and_ends_cleanly(environment: dict[str, str], tiny_model: Path,
                                                number: signal.Signals) -> None:
    process = start_process(environment, f'model:={tiny_model}')
    try:
        assert 'active' in read_until(process, 'active: images from')
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, rest
        assert 'Traceback' not in rest
    finally:
        process.kill()


def test_a_signal_that_comes_twice_asks_once(environment: dict[str, str],
                                             tiny_model: Path) -> None:
    process = start_process(environment, f'model:={tiny_model}')
    try:
        assert 'active' in read_until(process, 'active: images from')
        process.send_signal(signal.SIGTERM)  # to the group
        process.send_signal(signal.SIGINT)  # and from launch, who is told too
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, rest
    finally:
        process.kill()


def test_a_second_signal_later_ends_at_once(environment: dict[str, str]) -> None:
    # a process whose orderly end takes too long
    code = ('import time\nfrom hybrid_depth_ros import depth_node\n'
            'depth_node._SAME_REQUEST_S = 0.2\n'
            'kept = depth_node._call_on_signal(lambda: print("told", flush=True))\n'
            'print("ready", flush=True)\ntime.sleep(60)\n')
    process = subprocess.Popen([sys.executable, '-c', code], text=True, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert 'ready' in read_until(process, 'ready')
        process.send_signal(signal.SIGINT)
        assert 'told' in read_until(process, 'told')
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()


def test_process_with_autostart_off_waits(environment: dict[str, str], tiny_model: Path) -> None:
    process = start_process(environment, f'model:={tiny_model}', 'autostart:=false')
    try:
        # it answers after it would have started itself
        assert state_of('/hybrid_depth', int(environment['ROS_DOMAIN_ID'])) == 'unconfigured'
        process.send_signal(signal.SIGINT)
        log, _ = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert 'configured' not in log
    finally:
        process.kill()


def test_process_with_a_bad_parameter_ends_with_one_line(environment: dict[str, str]) -> None:
    process = start_process(environment, 'far_policy:=somewhere')
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "far_policy is 'somewhere'; expected one of" in log
    assert 'Traceback' not in log


def test_start_values_reach_the_pipeline() -> None:
    bench = Bench(max_depth_m=30.0, cpu_threads=1)
    try:
        assert bench.node.trigger_configure() == SUCCESS
        assert bench.pipeline.config.max_depth_m == 30.0
        assert bench.pipeline.config.cpu_threads == 1
        assert not bench.node.set_parameters([Parameter('cpu_threads', value=2)])[0].successful
    finally:
        bench.close()
