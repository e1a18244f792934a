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
"""A folder and files that nobody else can write: what is read back is what was written."""
from __future__ import annotations

from contextlib import suppress
import os
from pathlib import Path
import stat

from hybrid_depth.errors import BackendUnavailable

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> None:
    """
    Make the engine cache ``folder``, readable for its user alone, where there is none.

    Raises BackendUnavailable where it cannot be made, or others own it or can write there.
    """
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


def read_private(path: Path) -> bytes:
    """Read a file of our own. Raises OSError, or ValueError where others could have written it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, 'rb') as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() \
                or status.st_mode & _OTHERS_WRITE:
            raise ValueError(f'{path.name} is no file that this user alone can write')
        return stream.read()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of our own, whole or not at all, also in a power cut. Raises OSError."""
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
