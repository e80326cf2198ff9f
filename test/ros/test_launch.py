"""The launch files, started as a user starts them and ended with Ctrl-C."""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import installed_trees
import pytest
from harness import BOOTSTRAP, Peer
from installed_trees import ROOT, Install
from sensor_msgs.msg import Image

from bisenet_ros.transport import CHOICES

ARGUMENTS = {
    'segment.launch.py': [
        'image', 'camera_info', 'model', 'device', 'params_file', 'namespace', 'rviz', 'source',
        'log_level'],
    'cameras.launch.py': [
        'cameras', 'images', 'model', 'device', 'params_file', 'namespace', 'source',
        'log_level'],
    'two_cameras.launch.py': [
        'model', 'params_file', 'source', 'log_level',
        'left_namespace', 'left_image', 'left_camera_info', 'left_device',
        'right_namespace', 'right_image', 'right_camera_info', 'right_device'],
}

#: Two busy cores start four Python processes.
PATIENCE_S = 90.0

#: From Ctrl-C to the end of the launch: 2 s for the nodes, the rest is launch's own.
GOODBYE_S = 20.0

MODEL = ROOT / 'bisenet_ros' / 'models' / 'road_256x512.tflite'

needs_launch = pytest.mark.skipif(
    find_spec('launch_ros') is None,
    reason='launch_ros is not installed: it comes with a ROS 2 distribution, not from PyPI')

#: `ros2 launch`, of this very Python; without ros2cli the service behind it. A shell without job
#: control starts its children with SIGINT ignored, which a terminal does not.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if {has_ros2launch}:
    from ros2cli.cli import main
    sys.argv[0] = 'ros2'
    sys.exit(main())
from ament_index_python.packages import get_package_share_path
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
_, _, package, file, *arguments = sys.argv
service = LaunchService(argv=arguments)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(str(get_package_share_path(package) / 'launch' / file)),
    launch_arguments=[argument.split(':=', 1) for argument in arguments])]))
sys.exit(service.run())
"""

#: Stands in for rviz2: writes down how it was called and waits to be told to stop.
RVIZ2 = """#!{python}
import os, signal, sys
with open({report!r}, 'w') as report:
    print(*sys.argv[1:], sep='\\n', file=report)
    print(*map('='.join, os.environ.items()), sep='\\n', file=report)
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
signal.pause()
"""


class Launched:
    """A running launch file with a process group of its own, as in a terminal."""

    def __init__(
        self, install: Install, file: str, folder: Path, *arguments: str,
        overlay: Path | None = None, package: str = 'bisenet_ros', **environ: str,
    ) -> None:
        has_ros2launch = find_spec('ros2launch') is not None
        clean = {name: text for name, text in install.environment().items()
                 if name not in (*BOOTSTRAP, *CHOICES)}
        if overlay is not None:
            clean['AMENT_PREFIX_PATH'] = f'{overlay}{os.pathsep}{clean["AMENT_PREFIX_PATH"]}'
        self._log = folder / 'output.txt'
        with self._log.open('w') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-c', START.format(has_ros2launch=has_ros2launch),
                 'launch', package, file, *arguments],
                env={**clean, 'ROS_LOG_DIR': str(folder), 'PYTHONUNBUFFERED': '1', **environ},
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True)

    @property
    def output(self) -> str:
        return self._log.read_text(errors='replace')

    def pid(self, tool: str) -> int:
        """Return the process that was started for an executable."""
        return int(re.search(rf'\[{tool}-\d+\]: process started with pid \[(\d+)\]',
                             self.output).group(1))

    def environment(self, tool: str) -> dict[str, str]:
        text = Path(f'/proc/{self.pid(tool)}/environ').read_text()
        return dict(entry.split('=', 1) for entry in text.split('\0') if '=' in entry)

    def interrupt(self) -> int:
        """Press Ctrl-C: a terminal sends SIGINT to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(GOODBYE_S)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope='session')
def installs(tmp_path_factory):
    made = {}

    def install(kind: str) -> Install:
        if kind not in made:
            made[kind] = installed_trees.MAKERS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return install


@pytest.fixture
def launch(installs, tmp_path):
    """Give a function that starts a launch file; what still runs is ended after the test."""
    running = []

    def start(file: str, *arguments: str, kind: str = 'pip', **options) -> Launched:
        running.append(Launched(installs(kind), file, tmp_path, *arguments, **options))
        return running[-1]

    yield start
    for launched in running:
        launched.kill()


def wait_for_images(peer: Peer, launched: Launched, *topics: str) -> list[Image]:
    """Return the first image of each topic."""
    watches = [peer.watch(Image, topic) for topic in topics]

    def arrived() -> bool:
        assert launched.process.poll() is None, launched.output
        return all(watches)

    try:
        peer.wait_for(arrived, f'images on {topics}', PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(f'{error}\n{launched.output}') from error
    finally:
        peer.forget()
    return [watch[0] for watch in watches]


def assert_clean_end(launched: Launched, processes: int) -> None:
    code = launched.interrupt()

    assert code == 0, launched.output
    assert 'Traceback' not in launched.output, launched.output
    assert launched.output.count('process has finished cleanly') == processes, launched.output


@pytest.mark.parametrize('file', ARGUMENTS)
def test_arguments_are_those_of_the_design(file):
    declared = []
    for node in ast.walk(ast.parse((ROOT / 'launch' / file).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == 'DeclareLaunchArgument':
            name, = node.args
            sides = ('left', 'right') if isinstance(name, ast.JoinedStr) else ('',)
            declared += [
                ast.unparse(name).strip('f\'"').replace('{side}', side) for side in sides]
            assert {'default_value', 'description'} <= {word.arg for word in node.keywords}

    assert sorted(declared) == sorted(ARGUMENTS[file])


@needs_launch
@pytest.mark.parametrize('file', ARGUMENTS)
def test_launch_lists_its_arguments(launch, file):
    pytest.importorskip('ros2launch')
    launched = launch(file, '--show-args')

    assert launched.process.wait(PATIENCE_S) == 0
    listed = re.findall(r"^ +'(\w+)':$", launched.output, re.MULTILINE)
    assert listed[:len(ARGUMENTS[file])] == ARGUMENTS[file]  # included files' come behind


@pytest.fixture
def rviz2(tmp_path):
    """Stand in for rviz2: give its overlay and the file in which it reports how it was started."""
    overlay, report = tmp_path / 'overlay', tmp_path / 'rviz2.txt'
    executable = overlay / 'lib/rviz2/rviz2'
    marker = overlay / 'share/ament_index/resource_index/packages/rviz2'
    for path in (executable, marker):
        path.parent.mkdir(parents=True)
    marker.touch()
    executable.write_text(RVIZ2.format(python=sys.executable, report=str(report)))
    executable.chmod(0o755)
    return overlay, report


@needs_launch
@pytest.mark.parametrize('kind', ['pip', 'colcon'])
def test_masks_of_a_remapped_camera_arrive_and_ctrl_c_ends_it(
    launch, installs, peer, rviz2, kind,
):
    overlay, report = rviz2
    launched = launch(
        'segment.launch.py', 'source:=drive', 'image:=/cam/image', 'camera_info:=/cam/info',
        'rviz:=true', kind=kind, overlay=overlay)

    mask, frame = wait_for_images(peer, launched, '/segmenter/mask', '/cam/image')

    assert (mask.encoding, mask.width, mask.height) == ('mono8', frame.width, frame.height)
    assert set(bytes(mask.data)) == {0, 255}
    assert {name for name, _ in peer.node.get_topic_names_and_types()} >= {'/cam/info'}
    profile = installs(kind).share / 'config' / 'fastdds_localhost.xml'  # see conftest.py
    for tool in ('segmenter', 'replay'):
        assert launched.environment(tool)['FASTRTPS_DEFAULT_PROFILES_FILE'] == str(profile)
    assert f'FASTRTPS_DEFAULT_PROFILES_FILE={profile}' in report.read_text().splitlines()
    assert_clean_end(launched, processes=3)


@needs_launch
def test_arguments_win_over_the_parameter_file_only_where_given(launch, peer, rviz2, tmp_path):
    overlay, report = rviz2
    params_file = tmp_path / 'params.yaml'
    params_file.write_text(
        f'/robot/segmenter:\n  ros__parameters:\n    model: {MODEL}\n    device: usb:7\n'
        '    min_confidence: 0.25\n')

    launched = launch(
        'segment.launch.py', 'source:=drive', 'namespace:=robot', 'image:=front/image',
        'device:=cpu', 'rviz:=True', f'params_file:={params_file}', 'log_level:=WARN',
        overlay=overlay, FASTDDS_BUILTIN_TRANSPORTS='UDPv4')
    wait_for_images(peer, launched, '/robot/front/image')

    values = {name: peer.parameter(name, '/robot/segmenter')
              for name in ('model', 'device', 'min_confidence')}
    assert values == {'model': str(MODEL), 'device': 'cpu', 'min_confidence': 0.25}
    assert launched.environment('segmenter')['FASTDDS_BUILTIN_TRANSPORTS'] == 'UDPv4'
    assert '[INFO] [robot' not in launched.output
    view, = (line for line in report.read_text().splitlines() if line.endswith('.rviz'))
    assert Path(view).read_bytes() == (ROOT / 'config' / 'segment.rviz').read_bytes()
    assert {'/image:=front/image', '/segmenter/mask:=segmenter/mask', '__ns:=/robot',
            '/segmenter/overlay:=segmenter/overlay'} <= set(report.read_text().splitlines())
    assert_clean_end(launched, processes=3)


@needs_launch
def test_two_cameras_are_segmented_apart(launch, peer):
    launched = launch(
        'two_cameras.launch.py', 'source:=drive', 'left_image:=/stereo/left', 'right_namespace:=r')

    left, right, _ = wait_for_images(
        peer, launched, '/left/segmenter/mask', '/r/segmenter/mask', '/stereo/left')

    assert left.encoding == right.encoding == 'mono8'
    assert_clean_end(launched, processes=4)


@needs_launch
@pytest.mark.parametrize('file', ARGUMENTS)
@pytest.mark.parametrize('given', ['~/missing.yaml', '.'])
def test_a_parameter_file_that_is_not_there_starts_nothing(launch, file, given):
    launched = launch(file, f'params_file:={given}')

    assert launched.process.wait(PATIENCE_S) != 0
    assert f'params_file: found no file {given!r}' in launched.output
    assert 'process started' not in launched.output


@needs_launch
def test_a_parameter_file_at_home(launch, peer, tmp_path):
    (tmp_path / 'mine.yaml').write_text('/**:\n  ros__parameters: {smoothing: 0.75}\n')

    launched = launch('segment.launch.py', 'params_file:=~/mine.yaml', HOME=str(tmp_path))

    assert peer.parameter('smoothing') == 0.75
    assert_clean_end(launched, processes=1)


#: What a robot's own launch file does with ours.
ROBOT = """
from ament_index_python.packages import get_package_share_path
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter

def generate_launch_description():
    ours = str(get_package_share_path('bisenet_ros') / 'launch' / {file!r})
    return LaunchDescription([GroupAction([
        PushRosNamespace('robot'), SetParameter('min_confidence', 0.75),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(ours), launch_arguments={arguments!r})])])
"""


def robot_overlay(folder: Path, file: str, **arguments: str) -> Path:
    """Write a package ``robot`` whose launch file includes one of ours; return its prefix."""
    prefix = folder / 'robot_overlay'
    marker = prefix / 'share/ament_index/resource_index/packages/robot'
    launch_file = prefix / 'share/robot/launch/robot.launch.py'
    for path in (marker, launch_file):
        path.parent.mkdir(parents=True)
    marker.touch()
    launch_file.write_text(ROBOT.format(file=file, arguments=tuple(arguments.items())))
    return prefix


@needs_launch
@pytest.mark.parametrize(('file', 'arguments', 'sides'), [
    ('segment.launch.py', {'image': '', 'camera_info': '', 'rviz': 'False'}, ['']),
    ('two_cameras.launch.py', {}, ['/left', '/right']),
    ('cameras.launch.py', {'images': 'color,/usb/image'}, ['/front', '/rear'])])
def test_a_robots_launch_file_pushes_a_namespace_and_sets_parameters(
    launch, peer, tmp_path, file, arguments, sides,
):
    overlay = robot_overlay(tmp_path, file, source='drive', **arguments)

    launched = launch('robot.launch.py', package='robot', overlay=overlay)

    wait_for_images(peer, launched, *(f'/robot{side}/segmenter/mask' for side in sides))
    assert [peer.parameter('min_confidence', f'/robot{side}/segmenter') for side in sides] == [
        0.75] * len(sides)
    names = {name for name, _ in peer.node.get_topic_names_and_types()}
    assert names >= ({'/robot/front/color', '/usb/image'} if 'images' in arguments
                     else {f'/robot{side}/image' for side in sides})
    assert_clean_end(launched, processes=3 if 'images' in arguments else 2 * len(sides))


@needs_launch
@pytest.mark.parametrize(('given', 'has'), [('', False), ('none', False), ('drive', True)])
def test_a_launch_file_that_includes_ours_may_leave_the_source_empty(given, has):
    from launch import LaunchContext

    from bisenet_ros import launching

    context = LaunchContext()
    context.launch_configurations['source'] = given
    assert launching.has_source(context) == has


@needs_launch
def test_a_missing_rviz2_leaves_nothing_that_runs(launch):
    if any((Path(prefix) / 'lib' / 'rviz2').is_dir()
           for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
        pytest.skip('rviz2 is installed')
    launched = launch('segment.launch.py', 'rviz:=true')

    assert launched.process.wait(PATIENCE_S) != 0
    assert "package 'rviz2' not found" in launched.output
    assert 'process started' not in launched.output
