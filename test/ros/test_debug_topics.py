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
"""The topics that say how long frames take, and the status of the process."""
from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_bench import Bench
import pytest
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64
from test_topics_doc import first_cells, section

from hybrid_depth import machine
from hybrid_depth_ros import debug_topics, process_status
from hybrid_depth_ros.debug_topics import DEBUG_TOPICS

NAMES = [topic.removeprefix('~/') for topic in DEBUG_TOPICS]
pytestmark = pytest.mark.usefixtures('ros')


def listen(bench: Bench, *names: str) -> dict[str, list[float]]:
    """Subscribe to debug topics; returns where their numbers go."""
    numbers: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        bench.client.create_subscription(
            Float64, f'/hybrid_depth/{name}',
            lambda message, name=name: numbers[name].append(message.data), QoSProfile(depth=10))
    debug = bench.node._resources.cameras[0].debug
    bench.until(lambda: sum(publisher.get_subscription_count()
                            for publisher in debug._publishers.values()) == len(names))
    return numbers


def test_times_of_each_frame(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    numbers = listen(bench, *NAMES)
    bench.pipeline.delay_s = 0.05
    processing, latency, cycle = (numbers[name] for name in NAMES)
    now_ns = bench.node.get_clock().now().nanoseconds
    bench.send(stamp_ns=now_ns - 2_000_000_000)
    bench.until(lambda: len(processing) == len(latency) == 1)
    assert cycle == []  # there was no frame before
    bench.spin(0.15)
    bench.send()
    bench.until(lambda: len(processing) == len(latency) == 2 and len(cycle) == 1)
    # milliseconds, and no more than a busy machine may take
    assert 50 <= processing[0] < 20_000
    assert 2050 <= latency[0] < 40_000
    assert 150 <= cycle[0] < 60_000
    assert latency[0] > processing[0]


def test_they_make_nothing_be_computed(bench: Bench) -> None:
    assert bench.node.start()
    listen(bench, *NAMES)
    bench.diagnosed(lambda status, _: 'no output has a subscriber' in status.message)
    assert bench.images.get_subscription_count() == 0
    bench.listen('depth/image')
    bench.until(lambda: bench.images.get_subscription_count() == 1)
    bench.calibrate()
    bench.send_and_wait()


def test_without_listener_no_message_is_made(bench: Bench,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    bench.start('depth/image')
    bench.calibrate()
    monkeypatch.setattr(debug_topics, 'Float64', lambda **more: made.append(more))
    bench.send_and_wait()
    stats = bench.node._resources.cameras[0].stats
    bench.until(lambda: stats.snapshot().processed == 1)
    assert made == []


def test_they_go_with_the_other_outputs(bench: Bench) -> None:
    assert bench.node.start()
    assert bench.client.count_publishers(f'/hybrid_depth/{NAMES[0]}') == 1
    bench.node.trigger_deactivate()
    bench.node.trigger_cleanup()
    bench.until(lambda: bench.client.count_publishers(f'/hybrid_depth/{NAMES[0]}') == 0)


def test_the_status_of_the_process(bench: Bench) -> None:
    found: list[DiagnosticStatus] = []
    bench.client.create_subscription(
        DiagnosticArray, '/diagnostics', lambda message: found.extend(
            status for status in message.status if status.name == '/hybrid_depth: process'),
        QoSProfile(depth=10))
    bench.until(lambda: bool(found))
    values = {entry.key: entry.value for entry in found[-1].values}
    assert float(values['memory.resident_mib']) > 10
    assert float(values['memory.available_mib']) > 10
    assert float(values['uptime_s']) >= 0
    assert set(values) >= set(documented()) - {'temperature.limit_celsius'}


def documented() -> list[str]:
    return [name for name in first_cells('The process') if not name.startswith('gpu')]


def status(monkeypatch: pytest.MonkeyPatch, heat: machine.Heat | None,
           *gpus: machine.Gpu) -> tuple[DiagnosticStatus, dict[str, str]]:
    monkeypatch.setattr(machine, 'hottest', lambda: heat)
    monkeypatch.setattr(machine, 'gpus', lambda: gpus)
    made = process_status.process_status('name', 'host', 7.0,
                                         machine.Spent(0.61, 0.5, None))
    return made, {entry.key: entry.value for entry in made.values}


def test_keys_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = machine.Gpu('GPU', 512.0, 8192.0, None)
    _, values = status(monkeypatch, machine.Heat('cpu', 50.0, 90.0), gpu)
    assert [name.replace('<n>', '0') for name in first_cells('The process')] == list(values)
    assert (values['gpu0.memory_used_mib'], values['gpu0.celsius']) == ('512.0', 'unknown')
    assert values['temperature.celsius'] == '50.0'
    assert [values[f'start.{name}_s'] for name in ('active', 'cpu', 'waited')] == \
        ['0.61', '0.50', 'unknown']


@pytest.mark.parametrize(('heat', 'level'), [
    (None, DiagnosticStatus.OK), (machine.Heat('cpu', 89.0, 90.0), DiagnosticStatus.OK),
    (machine.Heat('cpu', 99.0, None), DiagnosticStatus.OK),
    (machine.Heat('cpu', 90.0, 90.0), DiagnosticStatus.WARN)])
def test_heat_that_slows_the_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch,
                                                  heat: machine.Heat | None,
                                                  level: bytes) -> None:
    made, _ = status(monkeypatch, heat)
    assert made.level == level
    if level != DiagnosticStatus.OK:
        assert '90 degrees C' in made.message


def test_topics_are_documented() -> None:
    assert first_cells('Latency') == list(DEBUG_TOPICS)
    for _, meaning in DEBUG_TOPICS.values():
        assert meaning in section('Latency')
