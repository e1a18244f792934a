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
"""out/reliability.json and docs/reliability.md: what was done to the node and how it took it."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
import json
import os
from pathlib import Path
import platform
from statistics import median
from typing import Any

from hybrid_depth_ros.soak.campaign import Tally
from hybrid_depth_ros.soak.faults import FAULTS
from hybrid_depth_ros.soak.world import Restart, World

RECOVERY_FRAMES = 3  # good input gives good output again within so many
MEMORY_GROWTH_PERCENT = 1.0
# A launch file starts a node again 0.5 s after its end, and within 2 s it shall be active: not
# counted is the time in which other processes had all the CPUs.
RESTART_S = 2.0
RESPAWN_DELAY_S = 0.5
_PACKAGES = ('numpy', 'opencv-python-headless', 'onnxruntime', 'ros-kilted-rclpy',
             'ros-rmw-fastrtps-cpp')


def versions() -> dict[str, str]:
    """Return the versions of what the node ran on, '' where it is not from a Python package."""
    found = {'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ''
    return found


def reliability(world: World, tally: Tally, *, seed: int, seconds: float,
                fuzz_inputs: Mapping[str, int]) -> dict[str, Any]:
    """Return what reliability.json holds."""
    return {
        'seconds': round(seconds, 1),
        'seed': seed,
        'faults_injected': {kind: tally.injected[kind] for kind in FAULTS},
        'crashes': len(world.crashes),
        'restarts': world.ends,
        'frames': world.driver.oracle.judged,
        'wrong_frames': len(world.driver.oracle.wrong),
        'memory_growth_percent': round(tally.memory_growth_percent(), 2),
        'recovery_frames_max': max(tally.recovery.values(), default=0),
        'fuzz_inputs': sum(fuzz_inputs.values()),
        'restart_times': [{name: None if value is None else round(value, 2)
                           for name, value in asdict(restart).items()}
                          for restart in world.restarts],
        'versions': versions(),
    }


def problems(world: World, tally: Tally, figures: Mapping[str, Any]) -> list[str]:
    """Return everything that was not as it must be; empty where the node passed."""
    found = [*world.crashes, *tally.problems, *world.driver.oracle.wrong]
    if figures['recovery_frames_max'] > RECOVERY_FRAMES:
        slow = {kind: count for kind, count in tally.recovery.items() if count > RECOVERY_FRAMES}
        found.append(f'more than {RECOVERY_FRAMES} images until depth was right again: {slow}')
    if figures['memory_growth_percent'] > MEMORY_GROWTH_PERCENT:
        found.append(f'memory grew by {figures["memory_growth_percent"]} %; at most '
                     f'{MEMORY_GROWTH_PERCENT} % is flat')
    limit_s = RESTART_S - RESPAWN_DELAY_S
    found += [f'the node took {restart.own_s:.1f} s to become active, not counting the time in '
              f'which others had the CPUs; at most {limit_s} s, so that it is there again '
              f'{RESTART_S} s after its end'
              for restart in world.restarts
              if restart.own_s is not None and restart.own_s > limit_s]
    return found


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures so that a reader sees either nothing or all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(figures, indent=1) + '\n')
    partial.replace(path)


def machine() -> str:
    """Return processor and number of usable cores."""
    model = platform.processor() or platform.machine()
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            model = line.partition(':')[2].strip()
            break
    return f'{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()}'


def markdown(figures: Mapping[str, Any], world: World, tally: Tally, found: list[str],
             fuzz_inputs: Mapping[str, int], command: str) -> str:
    """Return docs/reliability.md."""
    memory = f'{tally.memory[-1] / 2**20:.1f} MiB' if tally.memory else 'not measured'
    rows = '\n'.join(
        f'| `{kind}` | {count} | {tally.recovery.get(kind, "-")} | {FAULTS[kind].description} |'
        for kind, count in figures['faults_injected'].items())
    inputs = '\n'.join(f'| `{name}` | {count} |' for name, count in fuzz_inputs.items())
    listed = ', '.join(f'{name} {version}' for name, version in figures['versions'].items()
                       if version)
    failures = '\n'.join(f'- {text}' for text in found) or 'Nothing.'
    return _PAGE.format(
        command=command, machine=machine(), versions=listed, rows=rows, inputs=inputs,
        failures=failures, memory=memory,
        restart_rows=_restart_rows(world.restarts),
        restart_limit=RESTART_S, respawn_delay=RESPAWN_DELAY_S,
        faults=sum(figures['faults_injected'].values()), sent=tally.sent,
        accounted=tally.unaccounted, **{key: figures[key] for key in (
            'seconds', 'crashes', 'restarts', 'frames', 'wrong_frames', 'fuzz_inputs',
            'memory_growth_percent', 'recovery_frames_max')})


def _restart_rows(restarts: Sequence[Restart]) -> str:
    """Return a row of the table for each figure of the restarts."""
    rows = []
    for name, what in _RESTART_FIGURES.items():
        values = [value for restart in restarts
                  if (value := getattr(restart, name)) is not None]
        text = f'{median(values):.2f} s; {max(values):.2f} s' if values else 'not measured'
        limit = f'{RESTART_S - RESPAWN_DELAY_S} s' if name == 'own_s' else ''
        rows.append(f'| {what} | {text} | {limit} |')
    return '\n'.join(rows)


_RESTART_FIGURES = {
    'active_s': 'from the start of the process to its being active, by the node',
    'cpu_s': '... CPU time in it, of all threads',
    'waited_s': '... in which its first thread was ready to run and had no CPU',
    'own_s': 'until active without that',
    'depth_s': 'from the end of the process before to the first right depth, from outside',
}

_PAGE = """\
# Reliability

Written by `{command}` on {machine} ({versions}). Run it again with other seeds and longer:
`make soak SECONDS=3600`.

The node runs as a process of its own, with a model whose depth is known to the last bit: every
image shows its own number, so each depth image tells which image it was made of, with which
intrinsics, and whether a false motion had a part in it. Faults come one by one and then in random
order; the node is started again when it ends, as `respawn` of a launch file would.

| what | measured | must be |
|---|---|---|
| soak | {seconds} s, {faults} faults | |
| images sent, depth images judged | {sent}, {frames} | |
| depth with a wrong stamp, frame, size or scale | {wrong_frames} | 0 |
| ends of the process that no fault asked for | {crashes} | 0 |
| ends by kill -9 and SIGINT, after each of which it is started again | {restarts} | |
| images neither published, dropped with a reason nor counted as lost | {accounted} | 0 |
| good images until depth is right again, at most | {recovery_frames_max} | 3 |
| growth of memory it wrote to, after warming up | {memory_growth_percent} % (to {memory}) | 1 % |
| inputs of the fuzzer | {fuzz_inputs} | |

What went wrong:

{failures}

## Starting again

Of the restarts that no further fault interrupted: median; longest. No launch file is between: the
soak starts the process as soon as it sees the end of the one before, a launch file with
`respawn:=true` {respawn_delay} s later.

| what | measured | must be |
|---|---|---|
{restart_rows}

Under `respawn` the node is to be active {restart_limit} s after its end. Most of the
rest until depth flows is the middleware's: publishers and subscribers have to find the process.

- Announcements of a new process that are lost are repeated after 3 s by Fast DDS' defaults;
  `config/fastdds_shm.xml` repeats them every 0.1 s until then, which makes late starts fewer and
  does not end them.
- A process that takes over the ports of one that was killed, as the next one on the machine does,
  hears no data of publishers that had found the killed one for another second or two. So it is
  with a bare publisher and a bare subscriber too, without this node, with and without shared
  memory; a process with other ports hears them at once.

## Faults

"Recovery" is the most good images that it took until one came out right, sent one at a time; after
a restart, once depth flows.

| fault | times | recovery | what is done |
|---|---|---|---|
{rows}

`full_disk` makes every write of the process to a file fail (a limit of 0 bytes), its log among
them; the CPU runtime of the soak keeps no cache of engines, whose own tests have that case.
`tf_gap` is what the node sees of one: odometry of a frame that nothing connects with the camera.
`odometry_jump` moves the robot between two messages 25 ms apart: a move that a robot could make
is none. A message that cannot be decoded is discarded by the middleware; the node sees the gap in
the numbers of the messages and counts it in `frames_lost`.

## Fuzzing

`python -m hybrid_depth_ros.soak.fuzz --seconds N` mutates what comes from outside and expects a
result or an error of this project, nothing else.

| target | inputs |
|---|---|
{inputs}
"""
