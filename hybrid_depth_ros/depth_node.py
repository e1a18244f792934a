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
"""The lifecycle node ``hybrid_depth``: parameters, transitions, diagnostics, and its process."""
from __future__ import annotations

from collections.abc import Callable
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool

from hybrid_depth import machine
from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth_ros.camera_inputs import input_topic
from hybrid_depth_ros.diagnostics import diagnostic_status, FrameStats, Health, RclpyLogHandler
from hybrid_depth_ros.findings import Findings
from hybrid_depth_ros.parameters import NodeParameters, Settings
from hybrid_depth_ros.process_status import process_status
from hybrid_depth_ros.qos import advertise, output_qos
from hybrid_depth_ros.session import open_resources, Resources, Session

Transition = Callable[['DepthNode', LifecycleState], None]
_TICK_S = 1.0
_SAME_REQUEST_S = 1.0  # signals so close together ask once to end
_LOGGERS = ('hybrid_depth', 'hybrid_depth_ros')
_LIVE_PIPELINE = functools.partial(DepthPipeline, is_live=True)  # a robot does not wait


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
    Metric depth from ``image`` and ``camera_info``, and from the motion that ``odom`` gives.

    Callbacks only store what arrives; one thread computes and publishes, for all cameras.
    ``make_pipeline`` opens the model when the node is configured.
    """

    def __init__(self, make_pipeline: Callable[[PipelineConfig], Any] = _LIVE_PIPELINE,
                 **kwargs: Any) -> None:
        # before all that may raise: destroy_node looks at them
        self._resources: Resources | None = None
        self._session: Session | None = None
        self._log_handler: RclpyLogHandler | None = None
        super().__init__('hybrid_depth', **kwargs)
        self._make_pipeline = make_pipeline
        self.failure = ''  # of the last transition, '' = none
        self._is_enabled = True  # by ~/enable; of the node, so no transition changes it
        self._started_s = time.monotonic()
        self._start: machine.Spent | None = None  # until the node was active for the first time
        self._log_handler = RclpyLogHandler(self.get_logger())
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self._log_handler)
            # the numbers of the levels are the same in rclpy and in logging
            logger.setLevel(int(self.get_logger().get_effective_level()))
        self._table = NodeParameters(self)
        self._health = {camera: Health() for camera in self._table.cameras}
        self._diagnostics = advertise(self.create_publisher, self, DiagnosticArray, '/diagnostics',
                                      output_qos(), lambda: None)
        self.create_service(SetBool, '~/enable', self._on_enable)
        # steady: diagnostics must go on while simulated time stands still
        self._timer = self.create_timer(_TICK_S, self._on_tick,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        return str(self._state_machine.current_state[1])

    @property
    def settings_by_camera(self) -> dict[str, Settings]:
        """Return the current settings of every camera; '' = the only one."""
        return {name: self._table.settings_of(name) for name in self._table.cameras}

    def fail(self, message: str, trace: str = '') -> None:
        """Report a failed transition."""
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
        if self._log_handler is not None:
            for name in _LOGGERS:
                logging.getLogger(name).removeHandler(self._log_handler)
        super().destroy_node()

    # transitions

    @_transition
    def on_configure(self, state: LifecycleState) -> None:
        """Open the model and create the publishers."""
        table = self._table
        self._resources = open_resources(self, self._make_pipeline, table.cameras,
                                         table.settings_of, self._on_listener)
        pipeline = self._resources.cameras[0].pipeline
        super().on_configure(state)
        self.get_logger().info(f'configured: model {pipeline.spec.name} ({pipeline.spec.kind}) on '
                               f'{pipeline.backend_description}; {table.settings.pipeline}')

    @_transition
    def on_activate(self, state: LifecycleState) -> None:
        """Start the inference thread and listen."""
        if self._resources is None:
            raise RuntimeError('activated without being configured')
        super().on_activate(state)
        if self._start is None:
            self._start = machine.spent()
            self.get_logger().info(f'start: {self._start.text()}')
        if not self._is_enabled:
            self.get_logger().info('active, but disabled by ~/enable')
            return
        self._session = Session(self, self._resources, self._table.settings_of)
        topics = ', '.join(self._image_name(camera) for camera in self._table.cameras)
        self.get_logger().info(f'active: images from {topics}')

    @_transition
    def on_deactivate(self, state: LifecycleState) -> None:
        """Stop listening and computing, and give back the model's memory until it goes on."""
        self._stop()
        if self._resources is not None:
            self._resources.free()
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

    def _stop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _release(self) -> None:
        if self._resources is not None:
            self._resources.close()
            self._resources = None

    def _on_enable(self, request: SetBool.Request, answer: SetBool.Response) -> SetBool.Response:
        """Stop computing, or go on; the lifecycle state stays as it is."""
        self._is_enabled = request.data
        word = 'enabled' if request.data else 'disabled'
        try:
            if not request.data:
                self._stop()
            elif self.state == 'active' and self._session is None and self._resources is not None:
                self._session = Session(self, self._resources, self._table.settings_of)
                self.failure = ''
        except Exception as error:  # the edge to rclpy, which would end the process
            answer.message = f'~/enable: {type(error).__name__}: {error}'
            self.fail(answer.message, traceback.format_exc())
            return answer
        answer.success = True
        answer.message = word if self.state == 'active' else f'{word}, while {self.state}'
        self.get_logger().info(f'~/enable: {answer.message}')
        return answer

    def _on_listener(self) -> None:
        # only ever starts: a listener that comes back within a tick finds all as it was
        if self._session is not None:
            self._session.listen_if_wanted()

    def _on_tick(self) -> None:
        wanted = self._session.rest_if_unwanted() if self._session else {}
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [self._status(name, wanted.get(name, False))
                          for name in self._table.cameras]
        message.status.append(process_status(f'{self.get_fully_qualified_name()}: process',
                                             socket.gethostname(),
                                             time.monotonic() - self._started_s,
                                             self._start))
        self._diagnostics.publish(message)

    def _image_name(self, camera: str) -> str:
        return str(self.resolve_topic_name(input_topic(camera, 'image')))

    def _status(self, name: str, is_wanted: bool) -> DiagnosticStatus:
        """Return what diagnostics say about the camera ``name``."""
        resources = next((camera for camera in self._resources.cameras if camera.name == name),
                         None) if self._resources else None
        snapshot = resources.stats.snapshot() if resources else FrameStats().snapshot()
        findings = resources.findings if resources else Findings()
        complaints = [*findings.complaints()]
        if resources and (complaint := resources.pipeline.backend_complaint()):
            complaints.append((DiagnosticStatus.WARN, complaint))
        state = self.state
        doing = 'disabled' if state == 'active' and not self._is_enabled else state
        at_work_s = self._session.at_work_s() if self._session else 0.0
        level, text = self._health[name].level(snapshot, doing, is_wanted, self.failure,
                                               complaints, at_work_s)
        calibration = resources.source.state if resources else None
        camera = calibration.camera if calibration else 'no camera_info yet'
        facts = {
            'state': state,
            'enabled': 'yes' if self._is_enabled else 'no',
            'model': resources.pipeline.spec.name if resources
            else self._table.settings.pipeline.model,
            'backend': resources.pipeline.backend_description if resources else 'not loaded',
            'camera': f'{camera.width}x{camera.height}' if isinstance(camera, CameraModel)
            else str(camera),
            **(resources.pipeline.backend_facts() if resources else {}),
            **findings.facts(),
            **(self._session.facts(name) if self._session else {}),
        }
        own_name = f'{self.get_fully_qualified_name()}: {input_topic(name, "depth")}'
        return diagnostic_status(own_name, self._image_name(name), level, text, snapshot, facts)


def _call_on_signal(callback: Callable[[], None]) -> socket.socket:
    """
    Call ``callback`` from a thread on SIGINT or SIGTERM; a later second one ends at once.

    What comes within a second of the first is the same request: Docker, systemd and a terminal
    tell the whole group of processes, and launch and ros2 run, who belong to it, pass it on.

    A Python handler cannot end the executor's wait in C, and a signal mask does not hold for the
    threads that libraries have started; the wake-up descriptor is written in either case. Keep the
    returned socket open as long as signals shall count.
    """
    told, teller = socket.socketpair()
    teller.setblocking(False)
    signal.set_wakeup_fd(teller.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        if not told.recv(1):
            return
        first_s = time.monotonic()
        callback()
        while again := told.recv(1):
            if time.monotonic() - first_s > _SAME_REQUEST_S:
                os._exit(128 + again[0])

    threading.Thread(target=wait, daemon=True).start()
    return teller


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of the context; return the exit code."""
    is_stopping = threading.Event()
    wakers: list[Any] = []

    def stop() -> None:
        is_stopping.set()
        for guard in wakers:
            guard.trigger()

    signals = _call_on_signal(stop)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DepthNode()
    except (ParameterException, HybridDepthError) as error:
        rclpy.logging.get_logger('hybrid_depth').fatal(f'bad parameter: {error}')
        rclpy.shutdown()
        return 1
    wakers.append(node.create_guard_condition(lambda: None))  # its callback ends one spin
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    status = 0
    try:
        if node.get_parameter('build_only').value:
            from hybrid_depth_ros.build_only import build_only  # not for a robot that starts
            status = build_only(node, node.settings_by_camera,
                                lambda seconds: executor.spin_once(timeout_sec=seconds),
                                lambda: is_stopping.is_set() or not rclpy.ok())
            is_stopping.set()
        elif node.get_parameter('autostart').value:
            node.start()
        while rclpy.ok() and not is_stopping.is_set():
            executor.spin_once()
        if rclpy.ok() and node.state != 'finalized':
            node.trigger_shutdown()
    except ExternalShutdownException:
        node.get_logger().info('the ROS context was shut down')
    finally:
        wakers.clear()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        signal.set_wakeup_fd(-1)
        signals.close()
        # the interpreter, as it ends, gives signals with a handler back to what kills
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return status


if __name__ == '__main__':
    sys.exit(main())
