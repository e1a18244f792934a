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
Play a recorded drive, or the project's own, through the depth node.

    ros2 launch hybrid_depth_ros demo.launch.py drive:=/data/drive rviz:=true

Ends when the drive has been played (and recorded, with record:=true); with loop:=true on Ctrl-C.
Nothing is computed for nobody: without rviz, rerun and record it starts to play when somebody
subscribes to an output, as ``ros2 topic hz /hybrid_depth/depth/image`` does, within a minute.
"""
import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = 'hybrid_depth_ros'
BOOLEANS = ['true', 'false']


def declared_arguments():
    """Return every argument with its default and meaning."""
    return [
        DeclareLaunchArgument('drive', default_value='synthetic',
                              description='KITTI raw drive, folder with images/ and K.txt, '
                                          'rosbag2 or MCAP recording, or synthetic'),
        DeclareLaunchArgument('rate', default_value='1.0',
                              description='Speed of play; 2.0 is twice the recorded rate'),
        DeclareLaunchArgument('limit', default_value='0',
                              description='Frames to play; 0 means all'),
        DeclareLaunchArgument('loop', default_value='false', choices=BOOLEANS,
                              description='Start again after the last frame'),
        DeclareLaunchArgument('record', default_value='false', choices=BOOLEANS,
                              description='Check and sum up what comes out, into the folder out'),
        DeclareLaunchArgument('out', default_value='out/demo',
                              description='Folder for montage.png, summary.json and demo.rrd'),
        DeclareLaunchArgument('model', default_value='compact',
                              description='Name of a shipped model, or path of an .onnx file'),
        DeclareLaunchArgument('log_level', default_value='info',
                              choices=['debug', 'info', 'warn', 'error', 'fatal'],
                              description='Least severity that the node logs'),
        DeclareLaunchArgument('rviz', default_value='false', choices=BOOLEANS,
                              description='Open RViz with depth, cloud, map, TF and odometry'),
        DeclareLaunchArgument('rerun', default_value='false', choices=BOOLEANS,
                              description='Open the rerun viewer (pip install rerun-sdk)'),
    ]


def player_and_recorder(context):
    """Return the actions that depend on the arguments' values."""
    def value(name):
        return LaunchConfiguration(name).perform(context)
    is_recording, is_looping = value('record') == 'true', value('loop') == 'true'
    if is_recording and is_looping:
        raise RuntimeError('record:=true wants an end, loop:=true has none; give one of them')
    played = f'{value("out")}/played.json'
    player = Node(
        package=PACKAGE, executable='player', output='screen', arguments=[
            '--drive', value('drive'), '--rate', value('rate'), '--limit', value('limit'),
            '--wait-active', 'hybrid_depth', '--report', played,
            '--wait-listeners', '2' if is_recording else '1',
            *(['--loop'] if is_looping else [])])
    actions = [player]
    last = player
    if is_recording:
        last = Node(package=PACKAGE, executable='recorder', output='screen', arguments=[
            '--drive', value('drive'), '--limit', value('limit'), '--out', value('out'),
            '--player-report', played])
        actions.insert(0, last)
    end = OnProcessExit(target_action=last, on_exit=[EmitEvent(event=Shutdown())])
    return [*actions, RegisterEventHandler(end)]


def generate_launch_description():
    """Return the depth node's launch file, the player and, where asked for, the recorder."""
    share = get_package_share_directory(PACKAGE)
    # Fast DDS renamed the variable after Humble
    profile_variable = ('FASTRTPS' if os.environ.get('ROS_DISTRO') == 'humble' else 'FASTDDS') \
        + '_DEFAULT_PROFILES_FILE'
    return LaunchDescription([
        *declared_arguments(),
        # images and clouds want a larger shared-memory segment than Fast DDS has by default
        SetEnvironmentVariable(profile_variable, f'{share}/config/fastdds_shm.xml'),
        # before the node: where it raises, launch leaves running what it has started before
        OpaqueFunction(function=player_and_recorder),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(f'{share}/launch/depth.launch.py'),
            launch_arguments={name: LaunchConfiguration(name)
                              for name in ('model', 'log_level', 'rviz', 'rerun')}.items()),
    ])
