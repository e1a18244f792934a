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
Faults one by one, then in random order, for a stated time; after each, the node must be well.

For three quarters of the time the process goes on living, and its memory is watched; then come the
faults that end it, among the others. After every fault the robot is in order again and images are
sent one at a time, each when the one before was answered, until one comes out right.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
import random
import time

import numpy as np

from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.driver import Driver
from hybrid_depth_ros.soak.faults import FAULTS
from hybrid_depth_ros.soak.oracle import Account, unaccounted
from hybrid_depth_ros.soak.world import World

LIVING_SHARE = 0.75  # of the time is for faults that the process lives through
ANSWER_S = 3.0  # a busy machine answers slowly
RECOVERY_LIMIT = 20  # images after which a fault counts as not recovered from


@dataclass
class Tally:
    """What a soak has found."""

    injected: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, int] = field(default_factory=dict)  # kind -> most images it took
    memory: list[int] = field(default_factory=list)  # bytes, after each fault of the living part
    sent: int = 0
    unaccounted: int = 0
    problems: list[str] = field(default_factory=list)

    def memory_growth_percent(self) -> float:
        """
        Return how much more memory is used at the end than after warming up.

        Medians of a quarter of the samples each; the first quarter is warming up.
        """
        quarter = len(self.memory) // 4
        if quarter == 0:
            return 0.0
        early = np.median(self.memory[quarter:2 * quarter])
        return float(100 * (np.median(self.memory[-quarter:]) / early - 1))


def order(kinds: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield every kind in turn, then all of them again in ever new orders."""
    yield from kinds
    while True:
        yield from rng.sample(kinds, len(kinds))


def run(world: World, kinds: Sequence[str], seconds: float) -> Tally:
    """Inject ``kinds`` of faults for so long, each at least once; return what was found."""
    tally = Tally()
    driver = world.driver
    if not world.wait_ready() or _recover(driver) > RECOVERY_LIMIT:
        tally.problems.append('the node never gave a right depth')
        return tally
    start = time.monotonic()
    living = [kind for kind in kinds if not FAULTS[kind].ends_process]
    for part, share in ((living, LIVING_SHARE if len(living) < len(kinds) else 1.0),
                        ([kind for kind in kinds if kind not in living] + living, 1.0)):
        required = sum(kind not in tally.injected for kind in part)
        for count, kind in enumerate(order(part, world.rng) if part else ()):
            # of the second part only what ends the process is still to be had
            if count >= required and time.monotonic() - start > share * seconds:
                break
            _one(world, kind, tally)
            if part is living:
                tally.memory.append(world.private_bytes())
        if share == 1.0:
            break
    tally.sent = driver.sent
    return tally


def _one(world: World, kind: str, tally: Tally) -> None:
    driver, fault = world.driver, FAULTS[kind]
    before, sent = driver.account(), driver.sent
    crashes = len(world.crashes)
    for _ in fault.inject(world):
        driver.next_slot()
        if world.supervise():
            break
    tally.injected[kind] += 1
    driver.camera = scene.CAMERAS['front']
    if not world.wait_ready():
        tally.problems.append(f'{kind}: the node did not become ready again')
        return
    images = _recover(driver)
    tally.recovery[kind] = max(images, tally.recovery.get(kind, 0))
    if images > RECOVERY_LIMIT:
        tally.problems.append(f'{kind}: no right depth after {RECOVERY_LIMIT} good images')
    tally.problems += [f'{kind}: {problem}' for problem in driver.problems]
    driver.problems.clear()
    if not fault.restarts_count and len(world.crashes) == crashes:
        missing = _missing(before, driver.account(), driver.sent - sent)
        if missing:
            tally.unaccounted += abs(missing)
            tally.problems.append(f'{kind}: {missing} images are not accounted for')


def _missing(before: Account | None, after: Account | None, sent: int) -> int:
    return sent if before is None or after is None else unaccounted(before, after, sent)


def _recover(driver: Driver) -> int:
    """Send good images one at a time; return how many it took until one came out right."""
    for count in range(1, RECOVERY_LIMIT + 1):
        stamp = driver.good()
        if driver.until(lambda stamp=stamp: stamp in driver.right, ANSWER_S):
            return count
    return RECOVERY_LIMIT + 1
