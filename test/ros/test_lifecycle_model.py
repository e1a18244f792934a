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
"""Transitions, faults of the model and images in any order, against the state machine."""
from __future__ import annotations

from collections.abc import Callable
import contextlib
import threading
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    RuleBasedStateMachine,
    run_state_machine_as_test,
)
from node_bench import Bench, FakePipeline
import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from hybrid_depth.errors import BackendUnavailable

pytestmark = pytest.mark.usefixtures('ros')
# of (state, transition); what is absent must be refused and change nothing
NEXT = {('unconfigured', 'configure'): 'inactive', ('inactive', 'cleanup'): 'unconfigured',
        ('inactive', 'activate'): 'active', ('active', 'deactivate'): 'inactive',
        **{(state, 'shutdown'): 'finalized' for state in ('unconfigured', 'inactive', 'active')}}
FAULTS = {None: 'inactive', BackendUnavailable('no such device'): 'unconfigured',
          MemoryError('no memory'): 'unconfigured'}


class Lifecycle(RuleBasedStateMachine):
    """The node beside the state machine of managed nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.bench = Bench(self.make_pipeline)
        self.bench.listen('depth/image')
        self.state = 'unconfigured'

    def make_pipeline(self, config: Any) -> FakePipeline:
        if self.fault is not None:
            raise self.fault
        return FakePipeline(config)

    def ask(self, transition: str) -> bool:
        """Trigger a transition; return whether it was allowed and succeeded."""
        trigger: Callable[[], Any] = getattr(self.bench.node, f'trigger_{transition}')
        with contextlib.suppress(Exception):  # rclpy's own error: not allowed from this state
            return bool(trigger() == TransitionCallbackReturn.SUCCESS)
        return False

    @rule(fault=st.sampled_from(list(FAULTS)))
    def configure(self, fault: Exception | None) -> None:
        self.fault = fault
        allowed = self.state == 'unconfigured'
        assert self.ask('configure') is (allowed and fault is None)
        if allowed:
            self.state = FAULTS[fault]

    @rule(transition=st.sampled_from(['cleanup', 'activate', 'deactivate']))
    def other(self, transition: str) -> None:
        after = NEXT.get((self.state, transition))
        assert self.ask(transition) is (after is not None)
        self.state = after or self.state

    @precondition(lambda self: self.state != 'finalized')
    @rule(really=st.sampled_from([False] * 5 + [True]))
    def shutdown(self, really: bool) -> None:
        if really:
            assert self.ask('shutdown')
            self.state = 'finalized'

    @precondition(lambda self: self.state == 'active')
    @rule()
    def image(self) -> None:
        bench = self.bench
        bench.until(lambda: bench.images.get_subscription_count() == 1
                    and bench.infos.get_subscription_count() == 1)
        if not bench.node._resources.cameras[0].source.is_known:
            bench.calibrate()
        assert bench.send_and_wait().header.stamp.nanosec == bench.stamp_ns % 10**9

    @invariant()
    def node_is_in_the_state(self) -> None:
        assert self.bench.node.state == self.state

    @invariant()
    def nothing_is_open_that_should_not_be(self) -> None:
        threads = [thread for thread in threading.enumerate()
                   if thread.name == 'hybrid_depth_inference']
        assert len(threads) == (self.state == 'active')
        is_open = [not pipeline.is_closed for pipeline in self.bench.pipelines]
        assert sum(is_open) == (self.state in ('inactive', 'active'))

    def teardown(self) -> None:
        self.bench.close()


def test_any_order_of_transitions() -> None:
    run_state_machine_as_test(Lifecycle, settings=settings(
        max_examples=3, stateful_step_count=12, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck)))
