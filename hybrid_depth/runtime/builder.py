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
The process that builds one engine: ``python -m hybrid_depth.runtime.builder``.

It is a process of its own because building can crash, hang or take all memory. It builds, judges
what it built and puts it into the engine cache; ``build_process`` starts and watches it, by its
exit status and the lines it prints.
"""
from __future__ import annotations

import argparse
from contextlib import suppress
import ctypes
from importlib import import_module
import os
from pathlib import Path
import signal
import sys
import time
from typing import Any

from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.acceptance import accept
from hybrid_depth.runtime.engine_cache import engine_facts, EngineCache, key
from hybrid_depth.runtime.reference import find_reference, Reference

ACCEPTED, FAILED, REFUSED = 0, 1, 3  # exit status; Python itself uses 1 and 2
STAGE, ERROR = '[builder] stage: ', '[builder] error: '  # how lines begin that are meant for us
_PR_SET_PDEATHSIG = 1
_NICENESS = 10  # the depth that is published meanwhile comes first


def main(arguments: list[str] | None = None) -> int:
    """Build one engine; return ACCEPTED, REFUSED or FAILED."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('module', 'model', 'precision', 'cache'):
        parser.add_argument(f'--{name}', required=True)
    parser.add_argument('--size', type=int, nargs=2, required=True, help='of the network: H W')
    for name in ('gpu', 'threads', 'parent'):
        parser.add_argument(f'--{name}', type=int, required=True)
    given = parser.parse_args(arguments)
    _be_a_good_child(given.parent)
    options = BackendOptions(given.threads, given.precision, given.cache, given.gpu)
    path, size = Path(given.model), (given.size[0], given.size[1])
    try:
        return build(import_module(given.module), path, read_spec(path), size, options)
    except HybridDepthError as error:
        reason = str(error)
    except OSError as error:
        reason = f'{error}; the engine could not be kept in {given.cache}: make room there, or ' \
                 'name another folder with engine_cache'
    except MemoryError:
        reason = 'not enough memory'
    except Exception as error:  # the edge of the process: the parent wants one line
        reason = f'{type(error).__name__}: {error}'
    print(ERROR + ' '.join(reason.split()), flush=True)
    return FAILED


def build(module: Any, path: Path, spec: ModelSpec, size: tuple[int, int],
          options: BackendOptions) -> int:
    """
    Put the engine of the runtime ``module`` into the cache, with the verdict on it.

    Nothing is built where another process has done so meanwhile. Raises what building raises, and
    OSError where the engine cannot be written.
    """
    cache = EngineCache(options.engine_cache)
    facts = engine_facts(path, size, options.precision, module.environment_facts(options.gpu),
                         getattr(module, 'BUILD_SETTINGS', {}))
    name = key(facts)
    before = cache.report(name)
    _stage('waiting for other builders')
    # and one engine at a time: two of them might not fit into the memory of a small board
    with cache.lock(name), cache.lock('building'):
        if cache.get(name) is not None:
            return ACCEPTED
        report = cache.report(name)
        if report is not None and report != before and report['outcome'] == 'refused':
            return REFUSED
        start = time.monotonic()
        _stage(f'building {options.precision}')
        plan = module.build_engine(path, spec, size, options)
        seconds = round(time.monotonic() - start, 1)
        _stage('looking for reference outputs')
        reference = find_reference(path, spec, size, options)
        _stage('comparing with the reference outputs')
        report = {'seconds': seconds,
                  **judge(module, plan, spec, size, options, reference)}
        is_good = report['outcome'] == 'accepted'
        _stage('writing' if is_good else 'refused')
        cache.put(name, plan if is_good else None, facts, report)
    return ACCEPTED if is_good else REFUSED


def judge(module: Any, plan: bytes, spec: ModelSpec, size: tuple[int, int],
          options: BackendOptions, reference: Reference) -> dict[str, Any]:
    """Open ``plan`` and return what the cache reports about it."""
    backend = module.open_engine(plan, spec, size, options)
    try:
        verdict = accept(backend, spec, reference, options.precision)
        layers = getattr(backend, 'layers', None)  # share of layers by type, where it is known
    finally:
        backend.close()
    return {'outcome': 'accepted' if verdict.ok else 'refused', 'reason': verdict.reason,
            'figures': dict(verdict.figures), 'reference': verdict.source,
            'layers': dict(layers) if layers else {}}


def _stage(text: str) -> None:
    print(STAGE + text, flush=True)


def _be_a_good_child(parent: int) -> None:
    """Die with the parent, however it dies; give way to it in CPU time and in want of memory."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):  # a sandbox without /proc: the kernel then chooses by size
            Path('/proc/self/oom_score_adj').write_text('800')
    if os.getppid() != parent:  # it died before it could be noticed
        sys.exit(FAILED)
    os.nice(_NICENESS)


if __name__ == '__main__':
    sys.exit(main())
