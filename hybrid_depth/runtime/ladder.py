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
From a runtime that builds engines to one whose depth is right: precision by precision.

Under precision 'auto' the fastest is tried first, and what its outputs refuse gives way to the
next. A precision that was asked for by name is that or nothing.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
import logging
from pathlib import Path
import threading
import time
from typing import Any

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime import Backend, BackendOptions, BACKENDS, builder
from hybrid_depth.runtime.acceptance import accept
from hybrid_depth.runtime.build_process import BuildProcess, BuildRequest
from hybrid_depth.runtime.engine_cache import engine_facts, EngineCache, key
from hybrid_depth.runtime.reference import find_reference, Reference

logger = logging.getLogger(__name__)

# precision asked for -> those of the engines to try, in this order
LADDER: dict[str, tuple[str, ...]] = {
    'auto': ('fp16', 'fp16_safe', 'fp32'),
    'fp16': ('fp16',),
    'fp16_safe': ('fp16_safe',),
    'fp32': ('fp32',),
}
_RETRY_S = 30.0  # a builder that failed sooner was not even building, and is asked again next time


@dataclass(frozen=True)
class Step:
    """What came of one precision."""

    precision: str
    outcome: str  # accepted, refused (by its outputs), failed (to build or to open)
    reason: str
    figures: Mapping[str, float]

    def text(self) -> str:
        """Return the step in one line."""
        figures = ', '.join(f'{name} {value:.3g}' for name, value in self.figures.items())
        return f'{self.precision} {self.outcome}' \
            + (f': {self.reason}' if self.reason else '') + (f' ({figures})' if figures else '')


class Progress:
    """Where the ladder stands; written by the thread that walks it, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start_s = time.monotonic()
        self._stage, self._line = 'starting', ''
        self._steps: list[Step] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps that are behind."""
        with self._lock:
            return tuple(self._steps)

    def stage(self, text: str) -> None:
        """Note what is being done now."""
        logger.info('engine: %s', text)
        with self._lock:
            self._stage, self._line = text, ''

    def line(self, text: str) -> None:
        """Note what the builder printed last."""
        logger.debug('builder: %s', text)
        with self._lock:
            self._line = text

    def step(self, step: Step) -> None:
        """Note what came of a precision."""
        logger.log(logging.INFO if step.outcome == 'accepted' else logging.WARNING,
                   'engine: %s', step.text())
        with self._lock:
            self._steps.append(step)

    def text(self) -> str:
        """Return where it stands in one line: seconds, stage, last line of the builder."""
        with self._lock:
            elapsed = time.monotonic() - self._start_s
            return f'{elapsed:.0f} s: {self._stage}' + (f': {self._line}' if self._line else '')


def open_accepted(name: str, path: Path, spec: ModelSpec, size: tuple[int, int],
                  options: BackendOptions, *, process: BuildProcess | None = None,
                  progress: Progress | None = None, retry: bool = False) -> Backend:
    """
    Return the model at ``path`` opened by the runtime ``name``, accepted by its outputs.

    Takes engines from the cache where they are, else builds them (minutes). ``retry``: build also
    what was refused or failed before. The precision is one of LADDER. Raises BackendUnavailable
    with the reason of every step.
    """
    progress = progress or Progress()
    walk = _Walk(name, path, spec, size, options, process or BuildProcess(
        progress.stage, progress.line), progress, retry)
    precisions = LADDER[options.precision]
    for index, precision in enumerate(precisions):
        backend = walk.open(precision, precisions[index + 1:])
        if backend is not None:
            return backend
    reasons = '; '.join(step.text() for step in progress.steps)
    hint = '' if len(precisions) > 1 else \
        "; a precision that is named is not changed: 'auto' would try others"
    raise BackendUnavailable(f'{name} has no engine whose depth is right: {reasons}{hint}')


class _Walk:
    """One walk down the ladder."""

    def __init__(self, name: str, path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions, process: BuildProcess, progress: Progress,
                 retry: bool) -> None:
        self._module_name = BACKENDS[name]
        self._module: Any = import_module(self._module_name)
        self._path, self._spec, self._size, self._options = path, spec, size, options
        self._process, self._progress, self._retry = process, progress, retry
        self._cache = EngineCache(options.engine_cache)
        self._environment = self._module.environment_facts(options.gpu)
        self._reference: Reference | None = None

    def open(self, precision: str, later: tuple[str, ...]) -> Backend | None:
        """Return the accepted engine of ``precision``, None where there is none, and note why."""
        facts = self._facts(precision)
        name = key(facts)
        known = None if self._retry else self._cache.report(name)
        if known is not None and self._is_settled(known, later):
            self._note(precision, known['outcome'], f'{known["reason"]} (found before)',
                       known['figures'])
            return None
        for is_last in (False, True):
            plan = self._cache.get(name)
            was_cached = plan is not None
            if plan is None:
                plan = self._build(precision, name, facts)
                if plan is None:
                    return None
            self._find_reference()
            try:
                backend = self._open_engine(precision, plan)
            except Exception as error:  # a plan that the library does not take
                reason = f'{type(error).__name__}: {error}'
                if is_last or not was_cached:
                    self._note(precision, 'failed', f'cannot be opened: {reason}')
                    return None
                logger.warning('the cached engine %s cannot be opened and is built again: %s',
                               name[:12], reason)
                self._keep(name, facts, plan, 'failed', f'cannot be opened: {reason}')
                continue
            return self._judged(backend, precision, name, facts, plan)
        return None

    def _is_settled(self, known: Mapping[str, Any], later: tuple[str, ...]) -> bool:
        """Tell whether trying again is idle: refused, or failed where a later one is there."""
        if known['outcome'] == 'refused':
            return True
        return known['outcome'] == 'failed' and any(
            (self._cache.report(key(self._facts(precision))) or {}).get('outcome') == 'accepted'
            for precision in later)

    def _build(self, precision: str, name: str, facts: dict[str, Any]) -> bytes | None:
        options = replace(self._options, precision=precision)
        start = time.monotonic()
        result = self._process.build(BuildRequest(self._module_name, self._path, self._size,
                                                  options, self._cache.folder))
        seconds = time.monotonic() - start
        if self._process.is_closed:
            raise BackendUnavailable('building was stopped')
        report = self._cache.report(name) or {}
        if result.status == builder.REFUSED:
            self._note(precision, 'refused', report.get('reason', 'see its log'),
                       report.get('figures', {}))
            return None
        plan = self._cache.get(name) if result.status == builder.ACCEPTED else None
        if plan is None:
            reason = result.reason or 'it is not in the cache after being built'
            if seconds > _RETRY_S:
                self._keep(name, facts, None, 'failed', reason, log=result.log)
            self._note(precision, 'failed', reason)
            return None
        self._cache.annotate(name, {'log': list(result.log)})
        self._cache.prune()
        return plan

    def _find_reference(self) -> None:
        if self._reference is None:
            self._progress.stage('looking for reference outputs')
            self._reference = find_reference(self._path, self._spec, self._size, self._options)

    def _open_engine(self, precision: str, plan: bytes) -> Backend:
        self._progress.stage(f'opening {precision}')
        options = replace(self._options, precision=precision)
        backend: Backend = self._module.open_engine(plan, self._spec, self._size, options)
        return backend

    def _judged(self, backend: Backend, precision: str, name: str,
                facts: dict[str, Any], plan: bytes) -> Backend | None:
        assert self._reference is not None
        self._progress.stage(f'comparing {precision} with the reference outputs')
        verdict = accept(backend, self._spec, self._reference, precision)
        self._note(precision, 'accepted' if verdict.ok else 'refused',
                   verdict.reason or verdict.source, verdict.figures)
        if verdict.ok:
            return backend
        backend.close()
        self._keep(name, facts, plan, 'refused', verdict.reason, verdict.figures)
        return None

    def _facts(self, precision: str) -> dict[str, Any]:
        return engine_facts(self._path, self._size, precision, self._environment,
                            getattr(self._module, 'BUILD_SETTINGS', {}))

    def _keep(self, name: str, facts: dict[str, Any], plan: bytes | None, outcome: str,
              reason: str, figures: Mapping[str, float] | None = None,
              log: tuple[str, ...] = ()) -> None:
        """Replace ``plan`` by a note of why there is none; another process's later one stays."""
        try:
            with self._cache.lock(name, wait=False) as is_ours:
                if is_ours and self._cache.get(name) == plan:
                    self._cache.put(name, None, facts, {
                        'outcome': outcome, 'reason': reason, 'figures': dict(figures or {}),
                        'log': list(log)})
        except OSError as error:
            logger.warning('the engine cache %s: %s', self._cache.folder, error)

    def _note(self, precision: str, outcome: str, reason: str,
              figures: Mapping[str, float] | None = None) -> None:
        self._progress.step(Step(precision, outcome, reason, dict(figures or {})))
