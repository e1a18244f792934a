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
Built engines on disk: found again by the facts that they depend on, and by nothing else.

An engine is machine code for one GPU and one library version. So it is never shipped, only kept
where it was built: KEY.plan beside KEY.json, which holds the facts, the plan's sha256 and what is
known of it. The folder is private, for whoever can write there chooses what the GPU executes.
Plans are bytes and the rest is JSON: nothing is unpickled.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path
import platform
import stat
import time
from typing import Any

from hybrid_depth.errors import BackendUnavailable

logger = logging.getLogger(__name__)

SCHEMA = 1  # of key and sidecar
KEEP_BYTES = 4 << 30  # the least recently used engines beyond this are removed
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def key(facts: Mapping[str, Any]) -> str:
    """Return the sha256, in hexadecimal, of ``facts`` as canonical JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def engine_facts(path: Path, size: tuple[int, int], precision: str,
                 environment: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    Collect everything that an engine depends on.

    ``environment``: library versions and GPU; ``settings``: what the builder is told. Not in it:
    host name, time, power mode, which change nothing about the result.
    """
    return {'schema': SCHEMA, 'model': _sha256_of_model(path), 'size': list(size),
            'precision': precision, 'system': f'{platform.system()} {platform.machine()}',
            'environment': dict(environment), 'settings': dict(settings)}


@dataclass(frozen=True)
class Entry:
    """One engine, or the note that it was refused or could not be built."""

    key: str
    bytes: int  # of the plan; 0 = there is none
    used_s: float  # when it was last read or written, seconds since 1970
    facts: Mapping[str, Any]
    report: Mapping[str, Any]  # outcome, reason, figures, seconds, log (last lines), layers


class EngineCache:
    """
    The engines in one folder; any number of processes may use it at once.

    Raises BackendUnavailable where the folder cannot be made, or others can write there.
    """

    def __init__(self, folder: Path | str = '') -> None:
        self.folder = Path(folder).expanduser() if folder else _default_folder()
        _make_private(self.folder)

    def get(self, key: str) -> bytes | None:
        """Return the plan, None where there is none. One that is damaged or foreign is removed."""
        sidecar = self._sidecar(key)
        if sidecar is None or not sidecar['bytes']:
            return None
        path = self._path(key, '.plan')
        try:
            plan = _read_private(path)
        except (OSError, ValueError) as error:
            self._discard(key, f'cannot be used: {error}')
            return None
        if len(plan) != sidecar['bytes'] or _sha256(plan) != sidecar['sha256']:
            self._discard(key, f'is damaged: it has {len(plan)} bytes, and not the sha256 of the '
                               f'{sidecar["bytes"]} bytes that were written')
            return None
        with suppress(OSError):  # only keeps it from being pruned
            os.utime(path)
        return plan

    def report(self, key: str) -> Mapping[str, Any] | None:
        """Return what is known of an engine, None where nothing is."""
        sidecar = self._sidecar(key)
        return None if sidecar is None else sidecar['report']

    def put(self, key: str, plan: bytes | None, facts: Mapping[str, Any],
            report: Mapping[str, Any]) -> None:
        """
        Keep ``plan``, whole or not at all; None = only the report of one that is not to be used.

        To be called under its lock. Raises OSError where it cannot be written (a full disk), and
        then keeps nothing.
        """
        sidecar = {'key': key, 'facts': dict(facts), 'bytes': len(plan or b''),
                   'sha256': _sha256(plan or b''), 'report': dict(report)}
        self._remove(key)
        try:
            if plan is not None:
                _write(self._path(key, '.plan'), plan)
            _write(self._path(key, '.json'), json.dumps(sidecar, indent=1).encode())
        except OSError:
            self._remove(key)
            raise

    def annotate(self, key: str, more: Mapping[str, Any]) -> None:
        """Add to the report of an engine, where there still is one and the disk has room."""
        with suppress(OSError), self.lock(key, wait=False) as is_ours:
            sidecar = self._sidecar(key)
            if is_ours and sidecar is not None:
                sidecar['report'] |= more
                _write(self._path(key, '.json'), json.dumps(sidecar, indent=1).encode())

    @contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """
        Hold the lock of ``key``; yields False where another process has it and ``wait`` is off.

        The kernel gives the lock back when its holder dies, however that happens.
        """
        path = self._path(key, '.lock')
        flags = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                                 0o600)
            try:
                fcntl.flock(descriptor, flags)
                if _is_same_file(descriptor, path):  # else pruned while we waited
                    break
            except BlockingIOError:
                os.close(descriptor)
                yield False
                return
            os.close(descriptor)
        try:
            # what a killed holder was writing
            for part in self.folder.glob(f'{key}.*.part'):
                part.unlink(missing_ok=True)
            yield True
        finally:
            os.close(descriptor)

    def entries(self) -> list[Entry]:
        """Return all entries, the most recently used first."""
        found = []
        for path in self.folder.glob('*.json'):
            sidecar = self._sidecar(path.stem)
            if sidecar is not None:
                used = max((file.stat().st_mtime for file in self._files(path.stem)), default=0.0)
                found.append(Entry(path.stem, sidecar['bytes'], used, sidecar['facts'],
                                   sidecar['report']))
        return sorted(found, key=lambda entry: -entry.used_s)

    def prune(self, max_bytes: float = KEEP_BYTES, max_age_s: float = float('inf')) -> list[Entry]:
        """Remove what was not used for ``max_age_s``, or is beyond ``max_bytes``; return it."""
        kept, removed = 0, []
        for entry in self.entries():
            is_old = time.time() - entry.used_s > max_age_s
            if not is_old and kept + entry.bytes <= max_bytes:
                kept += entry.bytes
                continue
            with self.lock(entry.key, wait=False) as is_ours:
                if not is_ours:  # somebody builds it right now
                    kept += entry.bytes
                    continue
                self._remove(entry.key)
                self._path(entry.key, '.lock').unlink(missing_ok=True)
                removed.append(entry)
        return removed

    def timing_cache(self, environment: Mapping[str, Any]) -> Path:
        """
        Return the file in which the builder keeps the times it measured, for all models.

        Of ``environment`` only what these times depend on counts: library version and GPU.
        """
        facts = {name: environment.get(name)
                 for name in ('tensorrt', 'gpu_name', 'compute_capability')}
        return self.folder / f'timing-{key(facts)[:16]}.cache'

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f'{key}{suffix}'

    def _files(self, key: str) -> list[Path]:
        return [path for suffix in ('.plan', '.json')
                if (path := self._path(key, suffix)).is_file()]

    def _sidecar(self, wanted: str) -> dict[str, Any] | None:
        path = self._path(wanted, '.json')
        try:
            sidecar = json.loads(_read_private(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._discard(wanted, f'cannot be used: {error}')
            return None
        if not _is_sidecar(sidecar) or sidecar['key'] != wanted or key(sidecar['facts']) != wanted:
            self._discard(wanted, f'cannot be used: {path.name} belongs to another engine')
            return None
        return sidecar

    def _discard(self, key: str, reason: str) -> None:
        logger.warning('the cached engine %s in %s %s; it is removed and built again', key[:12],
                       self.folder, reason)
        self._remove(key)

    def _remove(self, key: str) -> None:
        for suffix in ('.json', '.plan'):
            with suppress(OSError):
                self._path(key, suffix).unlink(missing_ok=True)


def _default_folder() -> Path:
    base = os.environ.get('XDG_CACHE_HOME', '')
    if base.startswith('/'):
        return Path(base) / 'hybrid_depth'
    try:
        return Path.home() / '.cache' / 'hybrid_depth'
    except RuntimeError as error:
        raise BackendUnavailable(f'there is no cache folder for engines: {error}; name one with '
                                 'engine_cache') from error


def _make_private(folder: Path) -> None:
    remedy = 'name a folder of your own with engine_cache'
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise BackendUnavailable(f'the engine cache {folder} cannot be made: {error}; '
                                 f'{remedy}') from error
    if status.st_uid != os.geteuid():
        raise BackendUnavailable(f'the engine cache {folder} belongs to user {status.st_uid}, not '
                                 f'to {os.geteuid()}, who runs this: an engine is code, and is '
                                 f'not taken from others; {remedy}, or chown it')
    if status.st_mode & _OTHERS_WRITE:
        raise BackendUnavailable(f'the engine cache {folder} can be written by others (mode '
                                 f'{stat.S_IMODE(status.st_mode):o}): an engine is code; '
                                 f'run chmod go-w {folder}, or {remedy}')


def _read_private(path: Path) -> bytes:
    """Read a file of our own. Raises OSError, or ValueError where others could have written it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, 'rb') as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() \
                or status.st_mode & _OTHERS_WRITE:
            raise ValueError(f'{path.name} is no file that this user alone can write')
        return stream.read()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                             | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, 'wb') as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # the new name has to outlive a power cut as well
    finally:
        os.close(folder)


def _is_sidecar(value: Any) -> bool:
    kinds = {'key': str, 'facts': dict, 'bytes': int, 'sha256': str, 'report': dict}
    return isinstance(value, dict) and all(isinstance(value.get(name), kind)
                                           for name, kind in kinds.items())


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha256_of_model(path: Path) -> str:
    """Return the sum of an ONNX file and of the weights that lie beside it, where they do."""
    total = hashlib.sha256()
    beside = sorted(path.parent.glob(f'{path.name}[._]data*'))
    for file in (path, *beside):
        with file.open('rb') as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()
