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
"""What can happen to the node's process, its files, its listeners and its lifecycle."""
from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
import os
from pathlib import Path
import resource
import signal

from lifecycle_msgs.msg import Transition

from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.world import World

# (state, transition) -> state: the state machine of managed nodes, without its end
LIFECYCLE = {
    ('unconfigured', Transition.TRANSITION_CONFIGURE): 'inactive',
    ('inactive', Transition.TRANSITION_CLEANUP): 'unconfigured',
    ('inactive', Transition.TRANSITION_ACTIVATE): 'active',
    ('active', Transition.TRANSITION_DEACTIVATE): 'inactive',
}
TRANSITIONS = tuple(dict.fromkeys(transition for _, transition in LIFECYCLE))
_WAY_UP = (('unconfigured', Transition.TRANSITION_CONFIGURE),
           ('inactive', Transition.TRANSITION_ACTIVATE))
FRAMES = 8
Steps = Generator[None, None, str]  # returns the state that it has led to


def slow_subscriber(world: World) -> Iterator[None]:
    """Stop the process of a reliable subscriber for a while."""
    pid = world.children.pid('listener')
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3 * FRAMES):
            world.driver.good()
            yield
    finally:
        os.kill(pid, signal.SIGCONT)


def full_disk(world: World) -> Iterator[None]:
    """Let every write to a file fail, and start the node's work anew meanwhile."""
    _, most = resource.prlimit(world.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(world.pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        state = 'active'
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            state = yield from _step(world, state, transition)
        yield from _bring_up(world, state)
    finally:
        with suppress(ProcessLookupError):  # a crash gave the disk back as well
            resource.prlimit(world.pid, resource.RLIMIT_FSIZE, (most, most))


def model_replaced(world: World) -> Iterator[None]:
    """Put another model, half a model or none in the model's place while it has to be loaded."""
    driver, aside = world.driver, world.model.with_suffix('.aside')
    whole = world.model.read_bytes()
    contents = [None, b'', whole[:len(whole) // 2], world.rng.randbytes(len(whole))]
    world.model.rename(aside)
    try:
        for content in world.rng.sample(contents, len(contents)):
            _replace(world.model, content)
            for camera in ('wide', 'front'):
                driver.camera = scene.CAMERAS[camera]
                for _ in range(3):
                    driver.good()
                    yield
            world.model.unlink()
    finally:
        driver.camera = scene.CAMERAS['front']
        aside.replace(world.model)


def _replace(path: Path, content: bytes | None) -> None:
    """Write a file as installers do, at once; None: a good model of twice the scale."""
    partial = path.with_suffix('.partial')
    if content is None:
        scene.write_model(partial, factor=2.0)
    else:
        partial.write_bytes(content)
    partial.replace(path)


def lifecycle(world: World) -> Iterator[None]:
    """Ask for transitions in any order; each must do what the state machine says, or nothing."""
    state = 'active'
    for _ in range(6):
        state = yield from _step(world, state, world.rng.choice(TRANSITIONS))
    yield from _bring_up(world, state)


def _bring_up(world: World, state: str) -> Steps:
    for start, transition in _WAY_UP:
        if state == start:
            state = yield from _step(world, state, transition)
    return state


def _step(world: World, state: str, transition: int) -> Steps:
    after = LIFECYCLE.get((state, transition))
    done = world.driver.change_state(transition)
    if done is not (after is not None):
        answer = {True: 'done', False: 'refused', None: 'no answer'}[done]
        world.driver.problems.append(f'transition {transition} in state {state}: {answer}')
    for _ in range(2):
        world.driver.good()
        yield
    return after or state


def kill(world: World) -> Iterator[None]:
    """End the process with kill -9."""
    for _ in range(world.rng.randint(1, 4)):
        world.driver.good()
        yield
    world.signal_node(signal.SIGKILL)
    world.wait_ended(5.0)


def interrupt(world: World) -> Iterator[None]:
    """Interrupt the process while it runs, and a new one at any moment of its start."""
    for _ in range(world.rng.randint(1, 4)):
        world.driver.good()
        yield
    for delay_s in (0.0, world.rng.uniform(0.0, 2.5)):
        world.driver.spin(delay_s)
        world.signal_node(signal.SIGINT)
        if not world.wait_ended(10.0):
            world.crashes.append('the node did not end within 10 s of SIGINT')
            world.signal_node(signal.SIGKILL)
            world.wait_ended(5.0)
        world.supervise()
