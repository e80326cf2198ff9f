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

from functools import partial

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.utilities import prefix_namespace

from bisenet_ros import camera_names, launching


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
            description='Path of a .tflite model, or the name of a shipped one (road_128x256); '
                        'empty = what params_file says.'),
        DeclareLaunchArgument(
            'device', default_value='',
            description='auto, cpu, usb, usb:N, pci or pci:N; empty = what params_file says.'),
        DeclareLaunchArgument(
            'params_file', default_value='',
            description='File with parameters of the segmenter nodes, such as a copy of '
                        'config/segment.yaml; empty = the defaults.'),
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of the cameras\' namespaces.'),
        DeclareLaunchArgument(
            'source', default_value='none',
            description='Where the frames of all come from if not from camera drivers: none, '
                        'drive (a rendered drive), a video file or a folder of images.'),
        DeclareLaunchArgument(
            'log_level', default_value='info',
            choices=launching.LOG_LEVELS,
            description='Least severe message that the nodes print.'),
        OpaqueFunction(function=nodes),
    ])


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the process of all segmenters, and a replay for each where a source is given."""
    argument = partial(launching.argument, context)
    cameras = [name.strip('/') for name in argument('cameras').replace(' ', '').split(',')]
    images = argument('images').replace(' ', '').split(',') if argument('images') else [
        'image'] * len(cameras)
    if not camera_names.fits(cameras):
        raise ValueError(
            f'cameras: found {argument("cameras")!r}, expected {camera_names.EXPECTED}, with '
            'commas between.')
    if not all(images) or any(image.startswith('~') or image.endswith('/') for image in images):
        raise ValueError(
            f'images: found {argument("images")!r}, expected topics with commas between, '
            'such as /usb_cam/image_raw.')
    if len(images) != len(cameras):
        raise ValueError(
            f'images: found {len(images)} topics, expected one for each of the {len(cameras)} '
            f'cameras {", ".join(cameras)}.')
    # Rules and parameters name nodes in full: a group may have pushed a namespace before ours.
    namespace = prefix_namespace(
        context.launch_configurations.get('ros_namespace'), argument('namespace') or None)
    root = f'/{(namespace or "").strip("/")}'.rstrip('/')
    remappings = []
    for camera, image in zip(cameras, images, strict=True):
        own = f'{root}/{camera}'
        topic = image if image.startswith('/') else f'{own}/{image}'
        remappings += [(f'{own}/image', topic),
                       (f'{own}/camera_info', f'{topic.rpartition("/")[0]}/camera_info')]
    # No node name is given: a process with several nodes would have it hold for all of them.
    common = {'remappings': remappings, **launching.common_options(context)}
    actions: list[LaunchDescriptionEntity] = [launching.tool(
        'cameras', namespace=root or '/',
        parameters=[*launching.params_files(context), {'cameras': cameras},
                    launching.chosen(context, 'model', 'device')], **common)]
    if launching.has_source(context):
        actions += [launching.tool(
            'replay', namespace=f'{root}/{camera}',
            parameters=[launching.chosen(context, 'source')], **common) for camera in cameras]
    return actions
