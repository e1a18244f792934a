# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
QoS of every endpoint, overridable by parameter, and help when two endpoints do not match.

Inputs are BEST_EFFORT, which matches any publisher; outputs are RELIABLE, which matches any
subscriber but one that wants old messages.
"""
from __future__ import annotations

from collections.abc import Callable
import logging
from typing import Any

from rclpy.qos import (
    DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy)
from rclpy.qos_overriding_options import QoSOverridingOptions

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


def overrides() -> QoSOverridingOptions:
    """Return the options that make history, depth and reliability parameters."""
    return QoSOverridingOptions.with_default_policies()


def subscription_events(node: Any, topic: str) -> SubscriptionEventCallbacks:
    """Return callbacks that explain a publisher whose QoS does not match."""
    def explain(event: Any) -> None:
        _explain(event.last_policy_kind, node.resolve_topic_name(topic), 'subscription',
                 node.get_publishers_info_by_topic(node.resolve_topic_name(topic)), node)
    return SubscriptionEventCallbacks(incompatible_qos=explain)


def publisher_events(node: Any, topic: str,
                     on_matched: Callable[[], None]) -> PublisherEventCallbacks:
    """Return callbacks that explain a mismatch, and tell of each subscriber that comes or goes."""
    def explain(event: Any) -> None:
        _explain(event.last_policy_kind, node.resolve_topic_name(topic), 'publisher',
                 node.get_subscriptions_info_by_topic(node.resolve_topic_name(topic)), node)
    try:
        return PublisherEventCallbacks(incompatible_qos=explain,
                                       matched=lambda _: on_matched())
    except TypeError:  # Humble has no matched event: the node's slow timer notices instead
        return PublisherEventCallbacks(incompatible_qos=explain)


def _explain(kind: Any, topic: str, entity: str, others: list[Any], node: Any) -> None:
    """Log both sides' policy and the line that makes them match."""
    policy = QoSPolicyKind(int(kind)).name.lower()
    own = node.get_parameter_or(f'qos_overrides.{topic}.{entity}.{policy}', None)
    ours = own.value if own is not None else 'volatile'
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
