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
The peak of the machine: the fastest float32 matrix product of the libraries that are here.

Measured in a process of its own. A BLAS reads the number of its threads, and which kernels it is
held to, from the environment as it is loaded; and its threads spin for tens of milliseconds after
a product, which would take a core from whatever is timed next.
"""
from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.runtime import ort
from hybrid_depth_ros.bench.statistics import median_ms

LIBRARIES = ('numpy', 'onnxruntime')
LENGTH = 1024  # rows and columns: large enough for the peak, small enough for the cache
_SQUARE = b'\x12\x10\n\x0e\x08\x01\x12\n\n\x03\x08\x80\x08\n\x03\x08\x80\x08'  # float32, LENGTH^2
# y = MatMul(a, b) as an ONNX file; spelt out, as a robot has no onnx to make it with
MATMUL = (b'\x08\x08:[\n\x11\n\x01a\n\x01b\x12\x01y"\x06MatMul\x12\x01g'
          b'Z\x15\n\x01a' + _SQUARE + b'Z\x15\n\x01b' + _SQUARE + b'b\x15\n\x01y' + _SQUARE
          + b'B\x04\n\x00\x10\x11')


def gemm_gflops(model: Path, cpu_threads: int, seconds: float) -> dict[str, float]:
    """
    Return what matrix products reach in GFLOP/s, by library; each is timed for ``seconds``.

    All on ``cpu_threads``; ONNX Runtime with the options that it has for the file ``model``.
    Raises HybridDepthError.
    """
    environment = dict(os.environ)
    environment.pop('OPENBLAS_CORETYPE', None)  # kernels of an older processor are no peak
    threads = str(cpu_threads)
    environment |= {'OPENBLAS_NUM_THREADS': threads, 'OMP_NUM_THREADS': threads,
                    'MKL_NUM_THREADS': threads, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-m', __name__, str(model), threads, str(seconds)]
    try:
        result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=60 + 10 * seconds)
    except subprocess.TimeoutExpired as error:
        raise HybridDepthError(f'matrix products took over {error.timeout:.0f} s instead of about '
                               f'{2 * seconds:g} s; end what else is running') from error
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ['it said nothing'])[-1]
        raise HybridDepthError(f'matrix products could not be timed: {reason}; to see all of it: '
                               f'python -m {__name__} MODEL {threads} {seconds:g}')
    return {name: float(value) for name, value in json.loads(result.stdout).items()}


def peak(*measured: Mapping[str, float]) -> tuple[float, dict[str, float | str]]:
    """
    Return the best of all that was ``measured``, and the best of each library.

    The latter says under 'best' whose the peak is.
    """
    found = {name: max(figures[name] for figures in measured) for name in measured[0]}
    best = max(found, key=lambda name: found[name])
    return found[best], {**found, 'best': best}


def products(model: Path, cpu_threads: int, seconds: float) -> dict[str, float]:
    """Time the products in this process; see ``gemm_gflops``."""
    a = np.random.default_rng(0).random((LENGTH, LENGTH), np.float32)
    out = np.empty_like(a)
    options = ort.session_options(read_spec(model), None, cpu_threads)
    session = ort.open_session(MATMUL, model, options, ['CPUExecutionProvider'])
    # numpy's comes last, for its threads spin and those of our sessions do not
    times_ms = {'onnxruntime': median_ms(lambda: session.run(None, {'a': a, 'b': a}), seconds),
                'numpy': median_ms(lambda: np.matmul(a, a, out=out), seconds)}
    return {name: round(2e-6 * LENGTH**3 / times_ms[name], 1) for name in LIBRARIES}


if __name__ == '__main__':
    print(json.dumps(products(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
