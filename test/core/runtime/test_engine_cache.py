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
"""Engines on disk: private, whole, of these facts, or not used."""
from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from pathlib import Path
import stat
import subprocess
import sys
import time
from typing import Any

import pytest

from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime import engine_cache
from hybrid_depth.runtime.engine_cache import engine_facts, EngineCache, key

FACTS = {'precision': 'fp16', 'size': [192, 640]}
NAME = key(FACTS)
PLAN = bytes(range(256)) * 8
REPORT = {'outcome': 'accepted', 'reason': '', 'figures': {'median': 0.001}}
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / 'cache')


def stored(cache: EngineCache, plan: bytes | None = PLAN, facts: dict = FACTS) -> Path:
    name = key(facts)
    with cache.lock(name):
        cache.put(name, plan, facts, REPORT)
    return cache.folder / f'{name}.plan'


def test_what_is_put_is_got(cache: EngineCache) -> None:
    assert cache.get(NAME) is None
    assert cache.report(NAME) is None
    stored(cache)
    assert cache.get(NAME) == PLAN
    assert cache.report(NAME) == REPORT
    assert EngineCache(cache.folder).get(NAME) == PLAN  # another process would as well
    cache.annotate(NAME, {'log': ['a', 'b']})
    assert cache.report(NAME) == {**REPORT, 'log': ['a', 'b']}
    assert cache.get(NAME) == PLAN
    (entry,) = cache.entries()
    assert (entry.key, entry.bytes, entry.facts) == (NAME, len(PLAN), FACTS)
    assert list(cache.folder.glob('*.part')) == []


def test_a_refusal_is_kept_without_plan(cache: EngineCache) -> None:
    path = stored(cache)
    stored(cache, None)
    assert not path.exists()
    assert cache.get(NAME) is None
    assert cache.report(NAME) == REPORT


def test_the_key_is_of_the_facts_alone() -> None:
    assert key({'a': 1, 'b': [1, 2]}) == key({'b': (1, 2), 'a': 1})
    assert len(NAME) == 64
    assert len({key(facts) for facts in ({'a': 1}, {'a': '1'}, {'a': 1.5}, {'a': None}, {})}) == 5
    with pytest.raises(ValueError, match='Out of range'):
        key({'a': float('nan')})


def test_each_fact_makes_another_engine(tmp_path: Path) -> None:
    model = tmp_path / 'model.onnx'
    model.write_bytes(b'weights')
    environment = {'tensorrt': '10.3.0.26', 'gpu_name': 'Orin', 'compute_capability': '8.7',
                   'cuda': '12.6', 'sm_count': 16, 'memory_gib': 62}
    base: dict[str, Any] = {'path': model, 'size': (192, 640), 'precision': 'fp16',
                            'environment': environment, 'settings': {'level': 3}}
    names = [key(engine_facts(**base))]
    for fact in environment:
        names.append(key(engine_facts(**{**base, 'environment': {**environment, fact: 'x'}})))
    names += [key(engine_facts(**{**base, **change})) for change in
              ({'size': (192, 608)}, {'precision': 'fp32'}, {'settings': {'level': 4}})]
    assert key(engine_facts(**base)) == names[0]
    (tmp_path / 'model.onnx.data').write_bytes(b'more')
    names.append(key(engine_facts(**base)))
    model.write_bytes(b'weight!')
    names.append(key(engine_facts(**base)))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'longer', 'empty', 'gone', 'link',
                                    'writable', 'folder', 'pipe'])
def test_a_damaged_plan_is_not_used(cache: EngineCache, damage: str,
                                    caplog: pytest.LogCaptureFixture) -> None:
    path = stored(cache)
    data = path.read_bytes()
    if damage == 'cut':
        path.write_bytes(data[:100])
    elif damage == 'flipped':
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == 'longer':
        path.write_bytes(data + b'\0')
    elif damage == 'empty':
        path.write_bytes(b'')
    elif damage == 'writable':
        path.chmod(0o666)
    else:
        path.unlink()
    if damage == 'link':
        elsewhere = cache.folder.parent / 'elsewhere'
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    elif damage == 'folder':
        path.mkdir()
    elif damage == 'pipe':
        os.mkfifo(path)
    assert cache.get(NAME) is None
    assert 'built again' in caplog.text
    if damage != 'folder':  # which somebody has to remove
        stored(cache)
        assert cache.get(NAME) == PLAN


def test_what_another_process_is_replacing_is_left_to_it(cache: EngineCache) -> None:
    path = stored(cache)
    with cache.lock(NAME):  # as if by another process: a lock belongs to who opened its file
        path.write_bytes(b'half of the n')
        assert cache.get(NAME) is None
        assert path.read_bytes() == b'half of the n'
        cache.put(NAME, PLAN, FACTS, {})
    assert cache.get(NAME) == PLAN


def test_a_plan_that_was_replaced_between_looks_is_used(
        cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cache)
    real, looks = engine_cache.read_private, []

    def read(path: Path) -> bytes:
        looks.append(path.suffix)
        if looks == ['.json', '.plan']:  # the note was of the plan before
            return b'the plan after'
        return real(path)

    monkeypatch.setattr(engine_cache, 'read_private', read)
    assert cache.get(NAME) == PLAN
    assert looks == ['.json', '.plan', '.json', '.plan']


@pytest.mark.parametrize('suffix', ['.plan', '.json'])
def test_a_file_of_another_user_is_not_used(cache: EngineCache, suffix: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(cache).with_suffix(suffix)
    real, inode = os.fstat, path.stat().st_ino

    def fstat(descriptor: int) -> Any:
        status = real(descriptor)
        if status.st_ino != inode:
            return status
        return os.stat_result([*status[:4], status.st_uid + 1, *status[5:10]])

    monkeypatch.setattr(os, 'fstat', fstat)
    assert cache.get(NAME) is None
    monkeypatch.undo()
    assert not path.exists()


@pytest.mark.parametrize('text', ['', '{', '[]', '{}', '{"key": 1}', 'null', '[' * 100_000,
                                  '\x80\x04.', json.dumps({'key': NAME, 'facts': {}, 'bytes': 1,
                                                           'sha256': '', 'report': {}}),
                                  json.dumps({'key': NAME, 'facts': {'size': float('nan')},
                                              'bytes': 1, 'sha256': '', 'report': {}})])
def test_a_damaged_sidecar_is_not_used(cache: EngineCache, text: str) -> None:
    path = stored(cache)
    path.with_suffix('.json').write_text(text)
    assert cache.get(NAME) is None
    assert cache.report(NAME) is None
    assert cache.entries() == []
    assert not path.exists()


def test_an_engine_of_other_facts_is_foreign(cache: EngineCache) -> None:
    mine, other = stored(cache), stored(cache, facts={**FACTS, 'precision': 'fp32'})
    for suffix in ('.plan', '.json'):  # copied over, whole
        os.replace(other.with_suffix(suffix), mine.with_suffix(suffix))
    assert cache.get(NAME) is None


def test_the_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = EngineCache(tmp_path / 'a' / 'b')
    path = stored(cache)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o777, 0o770, 0o702):
        cache.folder.chmod(mode)
        with pytest.raises(BackendUnavailable, match=r'written by others.*chmod go-w'):
            EngineCache(cache.folder)
    cache.folder.chmod(0o755)
    assert EngineCache(cache.folder).get(NAME) == PLAN
    me = os.geteuid()
    monkeypatch.setattr(os, 'geteuid', lambda: me + 1)
    with pytest.raises(BackendUnavailable, match=f'belongs to user {me}, not to {me + 1}'):
        EngineCache(cache.folder)
    with pytest.raises(BackendUnavailable, match=r'cannot be made.*engine_cache'):
        EngineCache(path)


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert EngineCache().folder == tmp_path / 'xdg' / 'hybrid_depth'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')  # to be ignored, says its specification
    monkeypatch.setenv('HOME', str(tmp_path))
    assert EngineCache().folder == tmp_path / '.cache' / 'hybrid_depth'
    assert EngineCache('~/engines').folder == tmp_path / 'engines'
    with pytest.raises(BackendUnavailable, match=r'~nobody-at-all/x cannot be found.*engine_cach'):
        EngineCache('~nobody-at-all/x')


def test_a_full_disk_leaves_nothing_behind(cache: EngineCache,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cache)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='No space left'):
            stored(cache)
    assert cache.get(NAME) is None  # the old one was to be replaced
    assert [path.suffix for path in cache.folder.iterdir()] == ['.lock']
    stored(cache)
    assert cache.get(NAME) == PLAN


def test_a_really_full_disk(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path('/dev/full').exists():
        pytest.skip('/dev/full is not on this machine')
    real = os.open
    monkeypatch.setattr(os, 'open', lambda path, flags, *mode: real('/dev/full', os.O_WRONLY)
                        if str(path).endswith('.part') else real(path, flags, *mode))
    with pytest.raises(OSError, match='No space left'):
        stored(cache)
    assert cache.get(NAME) is None


def test_an_engine_outlives_a_power_cut(cache: EngineCache,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    real, kinds = os.fsync, []

    def fsync(descriptor: int) -> None:
        kinds.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    stored(cache)
    assert kinds == [stat.S_IFREG, stat.S_IFDIR] * 2  # each file, then its name


HOLD = """
import sys, time
from hybrid_depth.runtime.engine_cache import EngineCache
cache = EngineCache(sys.argv[1])
with cache.lock(sys.argv[2]):
    (cache.folder / (sys.argv[2] + '.plan.1.part')).write_bytes(b'half')
    print('held', flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_others_and_ends_with_its_holder(cache: EngineCache) -> None:
    holder = subprocess.Popen([sys.executable, '-c', HOLD, str(cache.folder), NAME], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == 'held\n'
        with cache.lock(NAME, wait=False) as is_ours:
            assert not is_ours
        with cache.lock('another', wait=False) as is_ours:
            assert is_ours
        assert cache.prune(0) == []
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with cache.lock(NAME) as is_ours:
        assert is_ours
    assert list(cache.folder.glob('*.part')) == []  # what it had begun


def test_a_lock_that_was_pruned_meanwhile_locks_nothing(cache: EngineCache,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.folder / f'{NAME}.lock'
    real, seen = fcntl.flock, []

    def flock(descriptor: int, flags: int) -> None:
        real(descriptor, flags)
        seen.append(flags)
        if len(seen) == 1:
            path.unlink()

    monkeypatch.setattr(fcntl, 'flock', flock)
    with cache.lock(NAME), EngineCache(cache.folder).lock(NAME, wait=False) as is_ours:
        assert not is_ours
    assert len(seen) == 2  # once in vain; the last try raised


def test_pruning_by_size_and_age(cache: EngineCache) -> None:
    all_facts = [{'n': number} for number in range(4)]
    now = time.time()
    for age, facts in zip((40, 30, 20, 10), all_facts, strict=True):
        path = stored(cache, facts=facts)
        for file in (path, path.with_suffix('.json')):
            os.utime(file, (now - age, now - age))
    assert cache.get(key(all_facts[0])) == PLAN  # counts as use
    assert [entry.facts['n'] for entry in cache.entries()] == [0, 3, 2, 1]
    assert [entry.facts['n'] for entry in cache.prune(2 * len(PLAN))] == [2, 1]
    assert [entry.facts['n'] for entry in cache.prune(max_age_s=5)] == [3]
    assert [path.suffix for path in sorted(cache.folder.glob('*'))] == ['.json', '.lock', '.plan']
    assert cache.get(key(all_facts[0])) == PLAN


def test_pruning_removes_what_the_dead_left(cache: EngineCache) -> None:
    path = stored(cache)
    facts = [{'n': number} for number in range(3)]
    killed, writing, times = (stored(cache, facts={'n': number}) for number in range(3))
    killed.with_suffix('.json').unlink()  # between the plan and its sidecar
    writing.unlink()
    writing.with_suffix('.json').unlink()
    writing.with_name(f'{writing.name}.77.part').write_bytes(PLAN)  # in the middle of the plan
    (cache.folder / 'timing-1.cache.77.part').write_bytes(b'times')
    times.with_suffix('.json').unlink()
    with cache.lock(key(facts[2])):  # that one is at work
        cache.prune()
        assert {file.name for file in cache.folder.iterdir() if file.suffix != '.lock'} == {
            path.name, path.with_suffix('.json').name, times.name}
    assert cache.get(NAME) == PLAN
    cache.prune()
    assert sorted(file.suffix for file in cache.folder.iterdir()) == ['.json', '.lock', '.plan']


def test_the_timing_cache_is_shared_by_models_on_one_gpu(cache: EngineCache) -> None:
    environment = {'tensorrt': '10.3.0.26', 'gpu_name': 'Orin', 'compute_capability': '8.7',
                   'memory_gib': 62}
    assert cache.times(environment) == b''
    cache.keep_times(environment, b'times')
    assert cache.times({**environment, 'memory_gib': 30}) == b'times'
    for fact in ('tensorrt', 'gpu_name', 'compute_capability'):
        assert cache.times({**environment, fact: 'x'}) == b''
    (path,) = cache.folder.glob('timing-*.cache')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o666)  # somebody else may have written it
    assert cache.times(environment) == b''


def test_times_are_written_whole_or_not_at_all(cache: EngineCache,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    cache.keep_times({}, b'old')

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        cache.keep_times({}, b'new')
    assert cache.times({}) == b'old'
    assert list(cache.folder.glob('*.part')) == []


def test_an_unwritable_disk_does_not_hinder_reading(cache: EngineCache, tmp_path: Path,
                                                    caplog: pytest.LogCaptureFixture) -> None:
    stored(cache)
    caplog.set_level(logging.WARNING)
    cache.annotate('absent', {'log': []})
    assert cache.report('absent') is None
    assert cache.get(NAME) == PLAN
