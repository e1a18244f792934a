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
QoS of every endpoint, overridable by parameter, and help when two endpoints do not match.

Inputs are BEST_EFFORT, which matches any publisher; outputs are RELIABLE, which matches any
subscriber but one that wants old messages.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import logging
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from hybrid_depth.errors import ConfigError

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

_LOG = logging.getLogger(__name__)
_OVERRIDABLE = ('history', 'depth', 'reliability')


def input_qos(depth: int) -> QoSProfile:
    """Return what a subscription asks for."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth,
                      reliability=ReliabilityPolicy.BEST_EFFORT,
                      durability=DurabilityPolicy.VOLATILE)


def output_qos() -> QoSProfile:
    """Return what a publisher offers."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                      reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.VOLATILE)


def listen(node: Any, message_type: Any, topic: str, callback: Callable[..., None],
           qos: QoSProfile) -> Any:
    """Create a subscription with overrides and help. Raises ConfigError on a bad override."""
    name = node.resolve_topic_name(topic)

    def explain(event: Any) -> None:
        _explain(node, event.last_policy_kind, name, 'subscription',
                 node.get_publishers_info_by_topic(name))
    with _clear_override_errors():
        return node.create_subscription(
            message_type, topic, callback, qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=explain),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())


def advertise(create_publisher: Callable[..., Any], node: Any, message_type: Any, topic: str,
              qos: QoSProfile, on_matched: Callable[[], None]) -> Any:
    """
    Create a publisher by ``create_publisher`` with overrides and help.

    ``on_matched`` is called whenever a subscriber comes or goes, where the distribution can tell.
    Raises ConfigError on a bad override.
    """
    name = node.resolve_topic_name(topic)

    def explain(event: Any) -> None:
        _explain(node, event.last_policy_kind, name, 'publisher',
                 node.get_subscriptions_info_by_topic(name))
    try:
        events = PublisherEventCallbacks(incompatible_qos=explain, matched=lambda _: on_matched())
    except TypeError:  # Humble has no matched event: the node's slow timer notices instead
        events = PublisherEventCallbacks(incompatible_qos=explain)
    with _clear_override_errors():
        return create_publisher(
            message_type, topic, qos, event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())


@contextmanager
def _clear_override_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, InvalidQosOverridesError) as error:  # what rclpy raises for a bad value
        raise ConfigError(f'{error}; reliability is reliable or best_effort, history keep_last or '
                          'keep_all') from error


def _explain(node: Any, kind: Any, topic: str, entity: str, others: list[Any]) -> None:
    """Log both sides' policy and the line that makes them match."""
    policy = QoSPolicyKind(int(kind)).name.lower()
    # no parameter: the policy cannot be overridden, and of those only durability is ever at odds
    ours = node.get_parameter_or(f'qos_overrides.{topic}.{entity}.{policy}').value or 'volatile'
    theirs = {f'{info.node_namespace.rstrip("/")}/{info.node_name}':
              getattr(getattr(info.qos_profile, policy, None), 'name', 'unknown').lower()
              for info in others}
    listed = ', '.join(f'{name}: {value}' for name, value in sorted(theirs.items())
                       if value != ours) or 'unknown'
    if policy in _OVERRIDABLE:
        wanted = 'best_effort' if entity == 'subscription' else 'reliable'
        remedy = f'start this node with -p qos_overrides.{topic}.{entity}.{policy}:={wanted}'
    else:
        remedy = f'use {policy} {ours} on the other side'
    _LOG.error('QoS mismatch on %s, so nothing flows: %s of this %s is %s, the other side has %s; '
               '%s', topic, policy, entity, ours, listed, remedy)
