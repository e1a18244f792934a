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
Mutate what comes from outside: each input must give a result or an error of this project.

    python -m hybrid_depth_ros.soak.fuzz --seconds 60 --seed 0

Runs in a process of its own with bounded memory, so that a crash of a native library, or memory
taken on the word of a damaged file, is a finding and not the end of whoever started it. The same
seed makes the same inputs.
"""
from __future__ import annotations

import argparse
from collections import Counter
import json
import os
from pathlib import Path
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback

from hybrid_depth.errors import HybridDepthError
from hybrid_depth_ros.soak.fuzz_targets import make_targets, Target

MEMORY_BYTES = 6 << 30  # of address space; what is really used is a small part of it


def run(seconds: float, seed: int) -> tuple[dict[str, int], list[str]]:
    """Fuzz in a child process; return inputs by target, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix='hybrid_depth_fuzz_') as folder:
        result = Path(folder) / 'result.json'
        child = subprocess.run(
            [sys.executable, '-m', 'hybrid_depth_ros.soak.fuzz', '--seconds', str(seconds),
             '--seed', str(seed), '--out', str(result)],
            capture_output=True, text=True, check=False, timeout=60 + 3 * seconds)
        if not result.is_file():
            last = '\n'.join(child.stderr.splitlines()[-5:])
            return {}, [f'the fuzzer ended with status {child.returncode}: {last}']
        found = json.loads(result.read_text())
    if child.returncode not in (0, 1):
        found['failures'].append(f'the fuzzer ended with status {child.returncode} at '
                                 f'{found["current"]}')
    return found['inputs'], found['failures']


def fuzz(targets: dict[str, Target], seconds: float, seed: int,
         out: Path) -> tuple[Counter[str], list[str]]:
    """Run every target in turn for so long; return inputs by target, and what went wrong."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    end = time.monotonic() + seconds
    written = 0.0
    while time.monotonic() < end and len(failures) < 20:
        for name, target in targets.items():
            # each input has a seed of its own, so that it alone can be made again
            rng = random.Random(f'{seed} {name} {counts[name]}')
            try:
                target(rng)
            except HybridDepthError:
                pass
            except Exception as error:  # that is what is looked for
                where = traceback.extract_tb(error.__traceback__)[-1]
                failures.append(f'{name}, input {counts[name]} of seed {seed}: '
                                f'{type(error).__name__}: {str(error)[:200]} '
                                f'({Path(where.filename).name}:{where.lineno})')
            counts[name] += 1
        if time.monotonic() - written > 0.5:  # a crash must not take the counts with it
            written = time.monotonic()
            _write(out, counts, failures, 'some input after ' + repr(dict(counts)))
    _write(out, counts, failures, '')
    return counts, failures


def _write(out: Path, counts: Counter[str], failures: list[str], current: str) -> None:
    partial = out.with_suffix('.partial')
    partial.write_text(json.dumps({'inputs': counts, 'failures': failures, 'current': current}))
    os.replace(partial, out)


def main(argv: list[str] | None = None) -> int:
    """Fuzz; return 0 where nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog='python -m hybrid_depth_ros.soak.fuzz',
                                     description='Mutate what comes from outside.')
    parser.add_argument('--seconds', type=float, default=60.0, help='how long')
    parser.add_argument('--seed', type=int, default=0, help='of the inputs')
    parser.add_argument('--only', default='', help='one target alone')
    parser.add_argument('--out', type=Path, default=Path('out/fuzz.json'), help='file to write')
    arguments = parser.parse_args(argv)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory(prefix='hybrid_depth_fuzz_') as folder:
        targets = make_targets(Path(folder))
        if arguments.only:
            targets = {arguments.only: targets[arguments.only]}
        counts, failures = fuzz(targets, arguments.seconds, arguments.seed, arguments.out)
    for name, count in counts.items():
        print(f'[fuzz] {name}: {count} inputs')
    for text in failures:
        print(f'[fuzz] FOUND: {text}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
