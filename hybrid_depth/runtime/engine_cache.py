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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path
import platform
import time
from typing import Any, TypeVar

from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime.private_files import make_private, read_private, write_whole

logger = logging.getLogger(__name__)
_Read = TypeVar('_Read')

SCHEMA = 1  # of key and sidecar
KEEP_BYTES = 4 << 30  # the least recently used engines beyond this are removed


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


class _Unusable(Exception):
    """What is in the cache is no engine of ours, or no longer."""


class EngineCache:
    """
    The engines in one folder; any number of processes may use it at once.

    Raises BackendUnavailable where the folder cannot be made, or others can write there.
    """

    def __init__(self, folder: Path | str = '') -> None:
        self.folder = _expanded(folder) if folder else _default_folder()
        make_private(self.folder)

    def get(self, key: str) -> bytes | None:
        """Return the plan, None where there is none. One that is damaged or foreign is removed."""
        plan = self._usable(key, self._read_plan)
        if plan is None:
            return None
        with suppress(OSError):  # only keeps it from being pruned
            os.utime(self._path(key, '.plan'))
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
                write_whole(self._path(key, '.plan'), plan)
            write_whole(self._path(key, '.json'), json.dumps(sidecar, indent=1).encode())
        except OSError:
            self._remove(key)
            raise

    def annotate(self, key: str, more: Mapping[str, Any]) -> None:
        """Add to the report of an engine, where there still is one and the disk has room."""
        with suppress(OSError), self.lock(key, wait=False) as is_ours:
            sidecar = self._sidecar(key)
            if is_ours and sidecar is not None:
                sidecar['report'] |= more
                write_whole(self._path(key, '.json'), json.dumps(sidecar, indent=1).encode())

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
        self._remove_strays()
        return removed

    def times(self, environment: Mapping[str, Any]) -> bytes:
        """Return what ``keep_times`` kept, b'' where there is nothing that can be used."""
        try:
            return read_private(self._path(_times_name(environment), '.cache'))
        except (OSError, ValueError):
            return b''

    def keep_times(self, environment: Mapping[str, Any], data: bytes) -> None:
        """
        Keep the times that a builder measured, for the next one, of whatever model.

        Of ``environment`` only what these times depend on counts: library version and GPU. Raises
        OSError where they cannot be written.
        """
        name = _times_name(environment)
        with self.lock(name):
            write_whole(self._path(name, '.cache'), data)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f'{key}{suffix}'

    def _files(self, key: str) -> list[Path]:
        return [path for suffix in ('.plan', '.json')
                if (path := self._path(key, suffix)).is_file()]

    def _sidecar(self, key: str) -> dict[str, Any] | None:
        return self._usable(key, self._read_sidecar)

    def _usable(self, key: str, read: Callable[[str], _Read | None]) -> _Read | None:
        """Return what ``read`` finds. What cannot be used is None; it is removed."""
        with suppress(_Unusable):
            return read(key)
        # not while another process replaces it: note and plan may then be of two engines
        with suppress(OSError), self.lock(key, wait=False) as is_ours:
            try:
                return read(key)
            except _Unusable as error:
                if is_ours:
                    logger.warning('the cached engine %s in %s %s; it is removed and built again',
                                   key[:12], self.folder, error)
                    self._remove(key)
                    self._path(key, '.lock').unlink(missing_ok=True)
        return None

    def _read_plan(self, key: str) -> bytes | None:
        sidecar = self._read_sidecar(key)
        if sidecar is None or not sidecar['bytes']:
            return None
        try:
            plan = read_private(self._path(key, '.plan'))
        except (OSError, ValueError) as error:
            raise _Unusable(f'cannot be used: {error}') from error
        if len(plan) != sidecar['bytes'] or _sha256(plan) != sidecar['sha256']:
            raise _Unusable(f'is damaged: it has {len(plan)} bytes, and not the sha256 of the '
                            f'{sidecar["bytes"]} bytes that were written')
        return plan

    def _read_sidecar(self, key: str) -> dict[str, Any] | None:
        path = self._path(key, '.json')
        try:
            sidecar: dict[str, Any] = json.loads(read_private(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise _Unusable(f'cannot be used: {error}') from error
        if not _is_sidecar(sidecar) or sidecar['key'] != key \
                or not _is_key_of(key, sidecar['facts']):
            raise _Unusable(f'cannot be used: {path.name} belongs to another engine')
        return sidecar

    def _remove_strays(self) -> None:
        """Remove what was being written when somebody was killed, and nobody began again."""
        names = {path.name.partition('.')[0] for suffix in ('.plan', '.part')
                 for path in self.folder.glob(f'*{suffix}')}
        for name in names:
            if not self._path(name, '.json').exists():
                with self.lock(name, wait=False) as is_ours:  # else it is being written right now
                    if is_ours and not self._path(name, '.json').exists():
                        self._remove(name)
                        self._path(name, '.lock').unlink(missing_ok=True)

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


def _expanded(folder: Path | str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # ~ of a user that there is not
        raise BackendUnavailable(f'the engine cache {folder} cannot be found: {error}; name a '
                                 'folder of your own with engine_cache') from error


def _times_name(environment: Mapping[str, Any]) -> str:
    names = ('tensorrt', 'gpu_name', 'compute_capability')
    return f'timing-{key({name: environment.get(name) for name in names})[:16]}'


def _is_sidecar(value: Any) -> bool:
    kinds = {'key': str, 'facts': dict, 'bytes': int, 'sha256': str, 'report': dict}
    return isinstance(value, dict) and all(isinstance(value.get(name), kind)
                                           for name, kind in kinds.items())


def _is_key_of(wanted: str, facts: Mapping[str, Any]) -> bool:
    try:
        return key(facts) == wanted
    except ValueError:  # NaN, which JSON does not know, but Python's reader of it
        return False


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
