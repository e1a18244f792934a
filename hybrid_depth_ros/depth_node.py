# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node ``hybrid_depth``: wiring of inputs, inference thread, outputs, diagnostics."""
from __future__ import annotations

from collections.abc import Callable
import functools
import logging
import os
import signal
import sys
import threading
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.diagnostics import (
    diagnostic_array, FrameStats, Health, RclpyLogHandler)
from hybrid_depth_ros.extrinsics import Extrinsics, StaticTransforms
from hybrid_depth_ros.frame_processor import FrameProcessor, Job
from hybrid_depth_ros.optional_packages import cv_bridge_fallback
from hybrid_depth_ros.outputs import OutputPublishers
from hybrid_depth_ros.parameters import NodeParameters
from hybrid_depth_ros.pose_source import PoseSource
from hybrid_depth_ros.qos import input_qos, output_qos, overrides, subscription_events
from hybrid_depth_ros.worker import NewestWorker

Transition = Callable[['DepthNode', LifecycleState], None]
_TICK_S = 1.0
_LOGGERS = ('hybrid_depth', 'hybrid_depth_ros')


def _transition(body: Transition) -> Callable[[Any, LifecycleState], TransitionCallbackReturn]:
    """
    Make a transition callback that reports what ``body`` raises.

    rclpy itself swallows the exceptions of transitions without a word.
    """
    @functools.wraps(body)
    def callback(self: DepthNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            body(self, state)
        except HybridDepthError as error:
            self.fail(f'{body.__name__}: {error}')
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # the edge to rclpy
            self.fail(f'{body.__name__}: unexpected {type(error).__name__}: {error}',
                      traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        self.failure = ''
        return TransitionCallbackReturn.SUCCESS
    return callback


class DepthNode(LifecycleNode):
    """
    Metric depth from ``image`` and ``camera_info``; ``odom`` is attached to each frame.

    Callbacks only store what arrives; one thread computes and publishes. ``make_pipeline`` opens
    the model when the node is configured.
    """

    def __init__(self, make_pipeline: Callable[[PipelineConfig], Any] = DepthPipeline,
                 **kwargs: Any) -> None:
        super().__init__('hybrid_depth', **kwargs)
        self._make_pipeline = make_pipeline
        self.failure = ''  # of the last transition, '' = none
        self._log_handler = RclpyLogHandler(self.get_logger())
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self._log_handler)
            # the numbers of the levels are the same in rclpy and in logging
            logger.setLevel(int(self.get_logger().get_effective_level()))
        self._table = NodeParameters(self)
        self._stats = FrameStats()
        self._health = Health()
        self._pipeline: Any = None
        self._outputs: OutputPublishers | None = None
        self._camera: CameraSource | None = None
        self._poses: PoseSource | None = None
        self._transforms: StaticTransforms | None = None
        self._worker: NewestWorker[Job] | None = None
        self._subscriptions_by_topic: dict[str, Any] = {}
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', output_qos(), qos_overriding_options=overrides())
        # steady: diagnostics must go on while simulated time stands still
        self._timer = self.create_timer(_TICK_S, self._on_tick,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        return str(self._state_machine.current_state[1])

    def fail(self, message: str, trace: str = '') -> None:
        """Report a failed transition and give back what it had taken."""
        self.failure = message
        self.get_logger().error(f'{message}\n{trace}' if trace else message)

    def start(self) -> bool:
        """Configure and activate; return whether that worked."""
        return self.trigger_configure() == TransitionCallbackReturn.SUCCESS and \
            self.trigger_activate() == TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the thread, then destroy everything."""
        self._stop()
        self._release()
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._log_handler)
        super().destroy_node()

    # transitions

    @_transition
    def on_configure(self, state: LifecycleState) -> None:
        """Open the model and create the publishers."""
        settings = self._table.settings
        try:
            self._pipeline = self._make_pipeline(settings.pipeline)
            self._stats = FrameStats()
            self._camera = CameraSource(settings['rectified'])
            self._outputs = OutputPublishers(self, self._on_listener)
            self._transforms = StaticTransforms(self)
            super().on_configure(state)
        except Exception:
            self._release()
            raise
        spec = self._pipeline.spec
        self.get_logger().info(f'configured: model {spec.name} ({spec.kind}) on '
                               f'{self._pipeline.backend_description}; {settings.pipeline}')

    @_transition
    def on_activate(self, state: LifecycleState) -> None:
        """Start the inference thread and listen."""
        super().on_activate(state)
        try:
            self._start()
        except Exception:
            self._stop()
            raise
        self.get_logger().info(f"active: images from {self.resolve_topic_name('image')}")

    @_transition
    def on_deactivate(self, state: LifecycleState) -> None:
        """Stop listening and computing; the model stays loaded."""
        self._stop()
        super().on_deactivate(state)

    @_transition
    def on_cleanup(self, state: LifecycleState) -> None:
        """Give back the model and the publishers."""
        super().on_cleanup(state)
        self._release()

    @_transition
    def on_shutdown(self, state: LifecycleState) -> None:
        """Stop everything for good."""
        self._stop()
        super().on_shutdown(state)
        self._release()

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after an unexpected error."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    # what transitions start and stop

    def _start(self) -> None:
        assert self._camera and self._outputs and self._transforms  # made by on_configure
        settings = self._table.settings
        self._poses = PoseSource(Extrinsics(settings, self._transforms).lookup,
                                 settings['odom.max_gap_s'])
        processor = FrameProcessor(
            self._pipeline, self._camera, self._poses, self._outputs, self._stats,
            lambda: self._table.settings, lambda: self.get_clock().now().nanoseconds,
            cv_bridge_fallback())
        self._worker = NewestWorker(processor.process, processor.replaced, processor.failed)
        self._subscribe('camera_info', CameraInfo, self._on_camera_info, 1)
        self._listen_on_demand()

    def _stop(self) -> None:
        for topic in list(self._subscriptions_by_topic):
            self._unsubscribe(topic)
        if self._poses is not None:
            self._poses.close()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
        self._camera = None
        self._poses = None

    # inputs

    def _subscribe(self, topic: str, message_type: Any, callback: Callable[[Any], None],
                   depth: int) -> None:
        if topic not in self._subscriptions_by_topic:
            self._subscriptions_by_topic[topic] = self.create_subscription(
                message_type, topic, callback, input_qos(depth),
                event_callbacks=subscription_events(self, topic),
                qos_overriding_options=overrides())

    def _unsubscribe(self, topic: str) -> None:
        subscription = self._subscriptions_by_topic.pop(topic, None)
        if subscription is not None:
            self.destroy_subscription(subscription)

    def _listen_on_demand(self) -> bool:
        """Subscribe to images and odometry while, and only while, somebody wants depth."""
        if self._worker is None or self._outputs is None:
            return False
        is_wanted = bool(self._outputs.wanted())
        if is_wanted:
            self._subscribe('odom', Odometry, self._on_odometry, 50)
            self._subscribe('image', Image, self._on_image, 1)
        return is_wanted

    def _on_listener(self) -> None:
        # only ever starts: a listener that comes back within a tick finds all as it was
        self._listen_on_demand()

    def _on_image(self, message: Image) -> None:
        if self._worker is None or self._poses is None:
            return
        self._stats.received()
        self._poses.image_arrived(stamp_to_ns(message.header.stamp))
        self._worker.offer(message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        if self._worker is None or self._camera is None:
            return
        if self._camera.update(message, self.resolve_topic_name('image')):
            state = self._camera.state
            if state is not None and isinstance(state.camera, CameraModel):
                self._worker.offer_if_empty(state.camera)

    def _on_odometry(self, message: Odometry) -> None:
        if self._poses is not None:
            self._poses.add(message)

    # diagnostics

    def _on_tick(self) -> None:
        is_wanted = self._listen_on_demand()
        if not is_wanted:
            self._unsubscribe('image')
            self._unsubscribe('odom')
        snapshot = self._stats.snapshot()
        level, text = self._health.level(snapshot, self.state, is_wanted, self.failure)
        settings = self._table.settings
        camera = self._camera.state.camera if self._camera and self._camera.state else None
        facts = {
            'state': self.state,
            'model': self._pipeline.spec.name if self._pipeline else settings.pipeline.model,
            'backend': self._pipeline.backend_description if self._pipeline else 'not loaded',
            'camera': f'{camera.width}x{camera.height}' if isinstance(camera, CameraModel)
                      else str(camera or 'no camera_info yet'),
            **(self._poses.facts() if self._poses else {}),
        }
        self._diagnostics.publish(diagnostic_array(
            self.get_clock().now().to_msg(), f'{self.get_fully_qualified_name()}: depth',
            self.resolve_topic_name('image'), level, text, snapshot, facts))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of the context; return the exit code."""
    signals = {signal.SIGINT, signal.SIGTERM}
    # waited for by a thread of their own: a handler could not end the executor's wait in C
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DepthNode()
    except (ParameterException, HybridDepthError) as error:
        rclpy.logging.get_logger('hybrid_depth').fatal(f'bad parameter: {error}')
        rclpy.shutdown()
        return 1
    is_stopping = threading.Event()
    wake = node.create_guard_condition(is_stopping.set)

    def wait_for_signals() -> None:
        signal.sigwait(signals)
        wake.trigger()
        os._exit(128 + signal.sigwait(signals))  # asked twice: do not wait for anything

    threading.Thread(target=wait_for_signals, daemon=True).start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if node.get_parameter('autostart').value:
        node.start()
    try:
        while rclpy.ok() and not is_stopping.is_set():
            executor.spin_once()
    except ExternalShutdownException:
        node.get_logger().info('the ROS context was shut down')
    if rclpy.ok() and node.state != 'finalized':
        node.trigger_shutdown()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
