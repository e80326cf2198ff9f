"""
Segment several cameras in one process that share one engine (and one EdgeTPU).

    ros2 launch bisenet_ros cameras.launch.py cameras:=front,rear
    ros2 launch bisenet_ros cameras.launch.py cameras:=front,rear \
        images:=/usb_cam/image_raw,/d435/color/image_raw
    ros2 launch bisenet_ros cameras.launch.py cameras:=front,rear source:=drive

The masks are then on ``/front/segmenter/mask`` and ``/rear/segmenter/mask``. Without ``images``
the cameras are on ``/front/image`` and ``/rear/image``; the CameraInfo is ``camera_info`` beside
the image, where camera drivers publish it. ``params_file`` holds for all; a section
``/front/segmenter:`` in it for one.
"""

import sys
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_path
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from bisenet_ros.transport import transport_environment

CONFIG = get_package_share_path('bisenet_ros') / 'config'


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow once their values are known."""
    return LaunchDescription([
        DeclareLaunchArgument(
            'cameras', default_value='front,rear',
            description='Names of the cameras, with commas between; each is a namespace.'),
        DeclareLaunchArgument(
            'images', default_value='',
            description='Topics of their images in the same order, with commas between; relative '
                        'names are in the camera\'s namespace; empty = image for each.'),
        DeclareLaunchArgument(
            'model', default_value='',
            description='Path of a .tflite model; empty = what params_file says.'),
        DeclareLaunchArgument(
            'device', default_value='',
            description='auto, cpu, usb, usb:N, pci or pci:N; empty = what params_file says.'),
        DeclareLaunchArgument(
            'params_file', default_value=str(CONFIG / 'segment.yaml'),
            description='Parameters of the segmenter nodes.'),
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of the cameras\' namespaces.'),
        DeclareLaunchArgument(
            'source', default_value='none',
            description='Where the frames of all come from if not from camera drivers: none, '
                        'drive (a rendered drive), a video file or a folder of images.'),
        DeclareLaunchArgument(
            'log_level', default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Least severe message that the nodes print.'),
        OpaqueFunction(function=nodes),
    ])


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the process of all segmenters, and a replay for each where a source is given."""
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    cameras = argument('cameras').replace(' ', '').split(',')
    images = argument('images').replace(' ', '').split(',') if argument('images') else [
        'image'] * len(cameras)
    if len(images) != len(cameras):
        raise ValueError(
            f'images: found {len(images)} topics, expected one for each of the {len(cameras)} '
            f'cameras {", ".join(cameras)}.')
    root = '/'.join(['', *argument('namespace').strip('/').split('/')]).rstrip('/')
    remappings = []
    for camera, image in zip(cameras, images, strict=True):
        own = f'{root}/{camera}'
        topic = image if image.startswith('/') else f'{own}/{image}'
        remappings += [(f'{own}/image', topic),
                       (f'{own}/camera_info', f'{topic.rpartition("/")[0]}/camera_info')]
    chosen = {
        name: ParameterValue(argument(name), value_type=str)
        for name in ('model', 'device') if argument(name)}
    common = {
        'remappings': remappings,
        'ros_arguments': ['--log-level', argument('log_level')],
        'additional_env': transport_environment(context.environment),
        'output': 'screen',
    }
    actions: list[LaunchDescriptionEntity] = [tool(
        'cameras', namespace=argument('namespace'),
        parameters=[argument('params_file'), {'cameras': cameras}, chosen], **common)]
    if argument('source') != 'none':
        source = ParameterValue(argument('source'), value_type=str)
        actions += [tool('replay', namespace=f'{root}/{camera}', parameters=[{'source': source}],
                         **common) for camera in cameras]
    return actions


def tool(name: str, **options: object) -> Node:
    """
    Return a process of ours: an executable from colcon, a module where pip installed it.

    It is given no node name: parameters of a process with several nodes are for all of them.
    """
    executable = Path(get_package_prefix('bisenet_ros')) / 'lib' / 'bisenet_ros' / name
    if executable.exists():
        return Node(package='bisenet_ros', executable=name, **options)
    return Node(
        executable=sys.executable, arguments=['-m', f'bisenet_ros.{name}'], exec_name=name,
        **options)
