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
"""A start of the node that builds the engines of its cameras, and ends."""
from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import threading
import time
from typing import Any

from sensor_msgs.msg import CameraInfo

from hybrid_depth.build_engine import build
from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.runtime.build_process import BuildProcess
from hybrid_depth.runtime.ladder import Progress
from hybrid_depth_ros.camera_inputs import input_topic
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.qos import input_qos, listen

_LOG = logging.getLogger(__name__)
_SAY_S = 10.0  # how often the log says what is going on


def build_only(node: Any, cameras: Mapping[str, Settings], spin_once: Callable[[float], None],
               is_stopped: Callable[[], bool]) -> int:
    """
    Build the engine for each of ``cameras``, by the size that its camera_info says.

    ``spin_once(seconds)`` lets the node's callbacks run; ends early where ``is_stopped``. Returns
    the exit status: 0 = every camera has an accepted engine, else 1.
    """
    for name, settings in cameras.items():
        camera = _wait_for_camera(node, name, settings, spin_once, is_stopped)
        if camera is None or not _build(settings, camera, spin_once, is_stopped):
            return 1
    return 0


def _wait_for_camera(node: Any, name: str, settings: Settings, spin_once: Callable[[float], None],
                     is_stopped: Callable[[], bool]) -> CameraModel | None:
    source = CameraSource(settings['rectified'])
    topic, image = (str(node.resolve_topic_name(input_topic(name, kind)))
                    for kind in ('camera_info', 'image'))

    def take(message: CameraInfo) -> None:
        source.update(message, image)

    subscription = listen(node, CameraInfo, topic, take, input_qos(1))
    said = -_SAY_S
    try:
        while not source.is_known:
            if is_stopped():
                return None
            if time.monotonic() - said >= _SAY_S:
                said = time.monotonic()
                _LOG.info('build_only: waiting for camera_info on %s, which says the size; '
                          'python -m hybrid_depth build-engine --size needs no camera', topic)
            spin_once(0.5)
    finally:
        node.destroy_subscription(subscription)
    camera = source.state.camera if source.state else None
    return camera if isinstance(camera, CameraModel) else None


def _build(settings: Settings, camera: CameraModel, spin_once: Callable[[float], None],
           is_stopped: Callable[[], bool]) -> bool:
    progress = Progress()
    process = BuildProcess(progress.stage, progress.line)
    results: list[str] = []

    def work() -> None:  # it starts the builders, which die with it
        try:
            results.append(build(settings.pipeline, (camera.width, camera.height), progress,
                                 process))
        except HybridDepthError as error:
            _LOG.error('build_only: %s', error)
        except Exception:  # the edge of the thread
            _LOG.exception('build_only failed')

    thread = threading.Thread(target=work, name='hybrid_depth_engine', daemon=True)
    thread.start()
    said = time.monotonic()
    while thread.is_alive():
        if is_stopped():
            process.close()
            thread.join()
        elif time.monotonic() - said >= _SAY_S:
            said = time.monotonic()
            _LOG.info('build_only: %s', progress.text())
        spin_once(0.2)
    for result in results:
        _LOG.info('build_only: ready for %dx%d: %s', camera.width, camera.height, result)
    return bool(results)
