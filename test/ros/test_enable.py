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
"""The service ~/enable: off costs nothing and keeps everything, on goes on with the next frame."""
from __future__ import annotations

import threading

from node_bench import Bench
import pytest
from std_srvs.srv import SetBool

from hybrid_depth_ros import depth_node
from hybrid_depth_ros.outputs import OUTPUTS

INPUTS = ('images', 'infos', 'odometry')
pytestmark = pytest.mark.usefixtures('ros')


def enable(bench: Bench, value: bool) -> SetBool.Response:
    """Call the service as any node would."""
    client = bench.client.create_client(SetBool, '/hybrid_depth/enable')
    bench.until(client.service_is_ready)
    answer = client.call_async(SetBool.Request(data=value))
    bench.until(answer.done)
    bench.client.destroy_client(client)
    return answer.result()


def listeners(bench: Bench) -> list[int]:
    return [getattr(bench, name).get_subscription_count() for name in INPUTS]


def begin(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    bench.send_and_wait()


def test_off_releases_the_inputs_and_keeps_model_and_outputs(bench: Bench) -> None:
    begin(bench)
    answer = enable(bench, False)
    assert (answer.success, answer.message) == (True, 'disabled')
    bench.until(lambda: listeners(bench) == [0, 0, 0])
    frames = len(bench.pipeline.frames)
    bench.send()
    bench.diagnosed(lambda status, values: (status.level, status.message) == (b'\0', 'disabled')
                    and (values['state'], values['enabled']) == ('active', 'no'))
    assert len(bench.pipeline.frames) == frames
    assert len(bench.pipelines) == 1
    assert not bench.pipeline.is_closed
    for row in OUTPUTS:
        assert bench.client.count_publishers(bench.node.resolve_topic_name(row.topic)) == 1


def test_on_goes_on_with_the_next_frame_and_the_same_model(bench: Bench) -> None:
    begin(bench)
    enable(bench, False)
    bench.until(lambda: listeners(bench) == [0, 0, 0])
    bench.send()  # for nobody
    assert enable(bench, True).message == 'enabled'
    bench.until(lambda: bench.images.get_subscription_count() == 1)
    image = bench.send()
    bench.until(lambda: len(bench.received['depth/image']) == 2)
    assert bench.received['depth/image'][-1].header == image.header
    assert len(bench.pipelines) == 1
    bench.diagnosed(lambda status, values: status.message == 'active'
                    and values['enabled'] == 'yes')


def test_saying_it_twice_changes_nothing(bench: Bench) -> None:
    begin(bench)
    session = bench.node._session
    assert enable(bench, True).success
    assert bench.node._session is session
    assert enable(bench, False).success
    assert enable(bench, False).success
    assert bench.node._session is None


def test_a_new_listener_does_not_wake_a_disabled_node(bench: Bench) -> None:
    begin(bench)
    enable(bench, False)
    bench.listen('points')
    bench.until(lambda: bench.client.count_subscribers('/hybrid_depth/points') == 1)
    bench.diagnosed(lambda status, _: status.message == 'disabled')
    assert bench.images.get_subscription_count() == 0


def test_the_frame_in_progress_is_finished(bench: Bench) -> None:
    begin(bench)
    bench.pipeline.gate = threading.Event()
    image = bench.send()
    bench.until(lambda: len(bench.pipeline.frames) == 2)
    threading.Timer(0.2, bench.pipeline.gate.set).start()
    assert enable(bench, False).success
    bench.until(lambda: len(bench.received['depth/image']) == 2)
    assert bench.received['depth/image'][-1].header == image.header


def test_it_holds_through_every_transition(bench: Bench) -> None:
    answer = enable(bench, False)
    assert (answer.success, answer.message) == (True, 'disabled, while unconfigured')
    assert bench.node.start()
    bench.listen('depth/image')
    bench.diagnosed(lambda status, _: status.message == 'disabled')
    assert listeners(bench) == [0, 0, 0]
    bench.node.trigger_deactivate()
    bench.diagnosed(lambda status, values: status.message == 'inactive'
                    and values['enabled'] == 'no')
    assert enable(bench, True).message == 'enabled, while inactive'
    assert listeners(bench) == [0, 0, 0]
    bench.node.trigger_activate()
    bench.until(lambda: listeners(bench) == [1, 1, 1])
    enable(bench, False)
    bench.node.trigger_deactivate()
    bench.node.trigger_cleanup()
    assert bench.pipelines[0].is_closed
    assert bench.node.start()
    bench.diagnosed(lambda status, _: status.message == 'disabled')


def test_a_failure_is_the_answer_and_the_node_lives(
        bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench)
    enable(bench, False)

    def fail(*_: object) -> None:
        raise RuntimeError('no thread to be had')
    with monkeypatch.context() as broken:
        broken.setattr(depth_node, 'Session', fail)
        answer = enable(bench, True)
    assert not answer.success
    assert 'no thread to be had' in answer.message
    bench.diagnosed(lambda status, _: status.level == b'\2' and 'no thread' in status.message)
    assert enable(bench, True).success
    bench.until(lambda: bench.images.get_subscription_count() == 1)
    bench.send_and_wait()
    bench.diagnosed(lambda status, _: status.message == 'active')
