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
"""The demo as a user runs it: three real processes, their end, and what they leave behind."""
from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from tiny_model import write_tiny_model

from hybrid_depth.config import PipelineConfig
from hybrid_depth.drives import open_drive
from hybrid_depth.metrics import depth_metrics
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.types import Frame

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 4
RATE = 0.5  # of real time, so that a busy machine keeps up too
SUMMARY_KEYS = {'frames_published', 'frames_processed', 'drops', 'latency_ms', 'rate_hz',
                'accuracy', 'model', 'backend', 'posed_share', 'stages_ms', 'versions',
                'problems'}
ACCURACY_KEYS = {'abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1', 'd2', 'd3'}


def demo_command(*arguments: object) -> list[str]:
    return [sys.executable, '-m', 'hybrid_depth_ros.demo', *(str(item) for item in arguments)]


def run_demo(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(demo_command(*arguments), cwd=ROOT, capture_output=True, text=True,
                          timeout=120, check=False)


def processes_with(text: str) -> list[int]:
    """Return the processes whose command line holds ``text``."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            command = (folder / 'cmdline').read_bytes().replace(b'\0', b' ').decode()
        except OSError:
            continue  # it has just ended
        if text in command and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def wait_until(condition, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('model') / 'tiny_of_the_demo_test.onnx'
    write_tiny_model(path)
    return path


@pytest.fixture(scope='module')
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Status, output and folder of a demo on a few synthetic frames."""
    out = tmp_path_factory.mktemp('demo')
    result = run_demo('--drive', 'synthetic', '--limit', FRAMES, '--rate', RATE, '--model', model,
                      '--out', out)
    return result.returncode, result.stdout + result.stderr, out


def test_every_frame_comes_out_right(finished, model):
    status, output, out = finished
    assert status == 0, output
    summary = json.loads((out / 'summary.json').read_text())
    assert set(summary) == SUMMARY_KEYS
    assert summary['frames_published'] == summary['frames_processed'] == FRAMES
    assert summary['drops'] == {}
    assert summary['problems'] == []
    latency = summary['latency_ms']
    assert 0 < latency['p50'] <= latency['p95'] <= latency['p99'] < 2000
    assert summary['rate_hz'] == pytest.approx(10.0 * RATE, rel=0.3)
    assert summary['model'] == 'tiny'
    assert 'ONNX Runtime' in summary['backend']
    assert summary['versions']['rclpy'][0].isdigit()
    assert not processes_with(str(model))


def test_accuracy_is_that_of_the_model_on_this_drive(finished, model):
    """The same frames through the core alone give the same figures."""
    _, output, out = finished
    accuracy = json.loads((out / 'summary.json').read_text())['accuracy']
    assert {name: set(values) for name, values in accuracy.items()} == {
        'metric': ACCURACY_KEYS, 'median_scaled': ACCURACY_KEYS}, output
    drive = open_drive('synthetic')
    pipeline = DepthPipeline(PipelineConfig(model=str(model)))
    rows = []
    for index in range(FRAMES):
        frame = drive.frame(index)
        result = pipeline.run(Frame(frame.image_rgb, frame.stamp_ns, 'optical', frame.camera))
        rows.append(depth_metrics(result.depth_m, frame.depth_m))
    pipeline.close()
    for key in ACCURACY_KEYS:
        expected = np.mean([row[key] for row in rows])
        assert accuracy['metric'][key] == pytest.approx(expected, rel=1e-3), key


def test_pictures_and_table(finished):
    _, output, out = finished
    picture = cv2.imread(str(out / 'montage.png'))
    assert picture is not None
    assert picture.shape[0] > 200
    assert picture.std() > 10
    assert (out / 'demo.rrd').stat().st_size > 10_000
    assert 'latency p50 / p95 / p99' in output
    assert 'frames published' in output


@pytest.fixture(scope='module')
def bare_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of ten images and K: no poses, no truth."""
    folder = tmp_path_factory.mktemp('bare')
    (folder / 'images').mkdir()
    noise = np.random.default_rng(0)
    for index in range(10):
        image = cv2.resize(noise.integers(0, 255, (12, 40, 3), np.uint8), (320, 96))
        cv2.imwrite(str(folder / 'images' / f'{index:04d}.png'), image)
    np.savetxt(folder / 'K.txt', [[200, 0, 160], [0, 200, 48], [0, 0, 1]])
    return folder


def test_a_drive_without_truth_and_poses(bare_drive, model, tmp_path):
    result = run_demo('--drive', bare_drive, '--limit', FRAMES, '--rate', RATE, '--model', model,
                      '--out', tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['accuracy'] is None
    assert summary['frames_processed'] == FRAMES
    assert 'no ground truth' in result.stdout


def test_dropped_frames_fail_the_demo_and_are_accounted_for(bare_drive, model, tmp_path):
    """At 1000 frames/s the newest wins: what did not come out is named, the status says so."""
    result = run_demo('--drive', bare_drive, '--rate', 100, '--model', model, '--out', tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert 'PROBLEM: ' in result.stdout
    summary = json.loads((tmp_path / 'summary.json').read_text())
    missing = summary['frames_published'] - summary['frames_processed']
    assert summary['frames_published'] == 10
    assert missing > 0
    lost = missing - sum(summary['drops'].values())
    assert any(problem.startswith('dropped by the node') for problem in summary['problems']) == (
        sum(summary['drops'].values()) > 0)
    assert any(problem.startswith('lost') for problem in summary['problems']) == (lost > 0)


@pytest.fixture
def running(model: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Start a demo and wait for its three children."""
    process = subprocess.Popen(
        demo_command('--drive', 'synthetic', '--model', model, '--out', tmp_path / 'out'),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True)

    def has_started() -> bool:
        children = processes_with(str(tmp_path / 'out'))  # and the demo itself
        return process.poll() is not None or (
            len(children) >= 3 and bool(processes_with(f'model:={model}')))
    try:
        assert wait_until(has_started, 120)
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(('number', 'status'), [
    (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stopped_demo_leaves_nothing_running(running, model, tmp_path, number, status):
    time.sleep(0.5)
    running.send_signal(number)
    assert running.wait(120) == status
    assert 'Traceback' not in running.stderr.read()
    assert not processes_with(str(tmp_path / 'out'))
    assert not processes_with(str(model))


def test_a_killed_demo_leaves_nothing_running(running, model, tmp_path):
    running.kill()
    running.wait()
    assert wait_until(lambda: not processes_with(str(tmp_path / 'out'))
                      and not processes_with(str(model)), 60)


@pytest.mark.parametrize(('arguments', 'expected'), [
    (['--drive', '/no/such/drive'], '/no/such/drive'),
    (['--drive', str(ROOT)], 'no drive in a known format'),
    (['--drive', 'synthetic', '--model', 'no_such_model'], 'no_such_model'),
    (['--drive', 'synthetic', '--rate', '0'], 'expected 0.01 to 100'),
])
def test_what_cannot_be_tried_is_said_in_one_line(tmp_path, arguments, expected):
    result = subprocess.run(demo_command(*arguments, '--out', tmp_path / 'out'), cwd=ROOT,
                            capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert expected in last
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'out').exists()
