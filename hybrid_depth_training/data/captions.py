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
Scene captions of recordings: what a person would say of a scene, from a table or its label.

A table is a YAML mapping from patterns of ``RECORDING/FRAME`` (* matches anything, the first that
fits counts) to captions. The published results use one caption a scene, made from the data set's
scene labels.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
import functools
from pathlib import Path

import yaml

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.data import DepthSample, Recording

# the 27 scene types of NYU Depth v2
NYU_SCENES = (
    'basement', 'bathroom', 'bedroom', 'bookstore', 'cafe', 'classroom', 'computer_lab',
    'conference_room', 'dinette', 'dining_room', 'exercise_room', 'foyer', 'furniture_store',
    'home_office', 'home_storage', 'indoor_balcony', 'kitchen', 'laundry_room', 'living_room',
    'office', 'office_kitchen', 'playroom', 'printer_room', 'reception_room', 'student_lounge',
    'study', 'study_room')
# further ones of SUN RGB-D
SUN_SCENES = (
    'cafeteria', 'coffee_room', 'computer_room', 'corridor', 'dancing_room', 'dining_area',
    'discussion_area', 'exhibition', 'gym', 'home', 'hotel_room', 'lab', 'laundromat',
    'lecture_theatre', 'library', 'lobby', 'mail_room', 'music_room', 'office_dining', 'reception',
    'recreation_room', 'rest_space', 'stairs', 'storage_room', 'study_space')
# where robots go besides
INDOOR_SCENES = (
    'room', 'office_corridor', 'break_room', 'staircase', 'warehouse', 'storage_aisle', 'workshop',
    'garage', 'parking_garage', 'factory_hall', 'laboratory', 'hospital_corridor', 'hospital_room',
    'hotel_corridor', 'restaurant', 'supermarket', 'shop', 'shopping_mall', 'museum',
    'train_station', 'airport_terminal', 'barn', 'tunnel')
OUTDOOR_SCENES = (
    'street', 'city_street', 'residential_street', 'country_road', 'motorway', 'crossroads',
    'parking_lot', 'sidewalk', 'alley', 'courtyard', 'market_square', 'campus', 'park', 'garden',
    'lawn', 'footpath', 'forest', 'forest_track', 'field', 'orchard', 'vineyard', 'farmyard',
    'construction_site', 'industrial_yard', 'harbour', 'railway', 'bridge', 'beach', 'hillside',
    'desert')
GENERAL_SCENES = ('indoor_scene', 'outdoor_scene')
NEUTRAL = 'a scene'
_OWN_CAPTIONS = {'stairs': 'stairs', 'crossroads': 'crossroads',
                 'office dining': 'an office dining room',
                 'idk': ''}  # SUN RGB-D's label for what its people could not tell


def caption_of(label: str) -> str:
    """
    Turn a scene label, such as office_kitchen, into a caption: an office kitchen.

    A label that says nothing, such as SUN RGB-D's idk, gives ''.
    """
    words = label.replace('_', ' ').strip()
    if words in _OWN_CAPTIONS or not words:
        return _OWN_CAPTIONS.get(words, '')
    return f'{"an" if words[0].lower() in "aeiou" else "a"} {words}'


VOCABULARY = tuple(dict.fromkeys(caption_of(label) for label in (
    *NYU_SCENES, *SUN_SCENES, *INDOOR_SCENES, *OUTDOOR_SCENES, *GENERAL_SCENES)))


def read_captions(path: Path) -> dict[str, str]:
    """Read a table of captions. Raises ConfigError where it is no mapping of text to text."""
    try:
        table = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'the captions {path} cannot be read: {error}') from error
    if not isinstance(table, dict) or not all(
            isinstance(text, str) and text for pair in table.items() for text in pair):
        raise ConfigError(f'{path} is no table of captions; expected PATTERN: CAPTION lines')
    return table


def captioned(recording: Recording, table: Mapping[str, str]) -> Recording:
    """Return ``recording`` whose frames have the captions of ``table``."""
    return replace(recording, read=functools.partial(_read, recording.read, recording.name,
                                                     dict(table)))


def _read(read: functools.partial[DepthSample], recording: str, table: dict[str, str],
          index: int) -> DepthSample:
    sample = read(index)
    name = f'{recording}/{sample.name}'
    for pattern, caption in table.items():
        if fnmatchcase(name, pattern):
            return replace(sample, caption=caption)
    raise ConfigError(f'no caption fits {name}; known patterns: {", ".join(table)}. Add one, such '
                      "as '*', to the table of captions")
