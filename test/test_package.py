"""The package as users get it: what pip and colcon put where, and what package.xml promises."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import installed_trees
import pytest
from installed_trees import ROOT, Install

PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()

MODEL_FILES = (
    *(f'{model}{suffix}' for model in ('road_256x512', 'road_256x512_near', 'road_128x256')
      for suffix in ('.tflite', '.json')), 'MODEL_CARD.md', 'LICENSE')

#: Importable without ROS.
RUNTIME_MODULES = ('bisenet_ros', 'bisenet_ros.core.segmenter', 'bisenet_ros.transport')

#: What a robot must never load.
TRAINING_MODULES = ('tensorflow', 'keras', 'jax', 'training')

#: Import name to rosdep key where they differ.
KEYS = {
    'cv2': 'python3-opencv', 'hypothesis': 'python3-hypothesis', 'numpy': 'python3-numpy',
    'pytest': 'python3-pytest', 'yaml': 'python3-yaml',
}

#: No rosdep key exists (the README tells how to install them), or used only where it is there.
UNDECLARED = {'ai_edge_litert', 'tflite_runtime', 'tensorflow', 'pycoral', 'cv_bridge', 'psutil'}

PROBE = """
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
from bisenet_ros import Segmenter
try:
    Segmenter.load(device='cpu', allow_tensorflow=False).close()
except Exception as error:
    if 'ai-edge-litert' not in str(error):
        raise
print(sys.modules['bisenet_ros'].__file__)
print(*sorted({{name.split('.')[0] for name in sys.modules}} & set({unwanted})))
"""


@pytest.fixture(scope='session')
def installs(tmp_path_factory):
    """Make each kind of install once, when it is first asked for."""
    made = {}

    def install(kind: str) -> Install:
        if kind == 'sourced':
            return installed_trees.sourced_install()
        if kind not in made:
            made[kind] = installed_trees.MAKERS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return install


@pytest.fixture(params=['pip', 'colcon', 'sourced'])
def install(request, installs) -> Install:
    return installs(request.param)


def files_below(folder: Path, pattern: str = '*') -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file()}


def tools() -> set[str]:
    """Return the modules that have a ``main``."""
    return {
        path.stem for path in (ROOT / 'bisenet_ros').glob('*.py')
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == 'main'}


def test_every_module_is_installed(install):
    assert files_below(install.site / 'bisenet_ros', '*.py') == (
        files_below(ROOT / 'bisenet_ros', '*.py'))


@pytest.mark.parametrize('name', MODEL_FILES)
def test_model_and_its_papers_are_installed(install, name):
    installed = install.site / 'bisenet_ros' / 'models' / name

    assert installed.read_bytes() == (ROOT / 'bisenet_ros' / 'models' / name).read_bytes()


@pytest.mark.parametrize('folder', ['launch', 'config'])
def test_launch_and_config_files_are_installed(install, folder):
    source = {path.name: path.read_bytes() for path in (ROOT / folder).glob('*.*')}

    installed = {
        path.name: path.read_bytes() for path in (install.share / folder).iterdir()
        if path.is_file()}  # pip adds a __pycache__

    assert source
    assert installed == source


def test_ros_finds_the_package(install):
    marker = install.prefix / 'share/ament_index/resource_index/packages/bisenet_ros'

    assert marker.is_file()
    assert (install.share / 'package.xml').read_bytes() == (ROOT / 'package.xml').read_bytes()


def test_nothing_lands_on_the_path(install):
    if install.kind == 'sourced':
        pytest.skip('others may share its bin folder')

    assert not files_below(install.prefix / 'bin')


def test_runtime_loads_the_installed_model_without_any_training_library(install, tmp_path):
    modules = list(RUNTIME_MODULES)
    environ = install.environment()
    if subprocess.run([sys.executable, '-c', 'import rclpy, std_srvs.srv'], env=environ,
                      cwd=tmp_path, capture_output=True, check=False).returncode == 0:
        modules += [f'bisenet_ros.{tool}' for tool in sorted(tools())]

    output = installed_trees.run(
        [sys.executable, '-c', PROBE.format(modules=modules, unwanted=TRAINING_MODULES)],
        tmp_path, environ)

    imported, unwanted = output.splitlines()[-2:]
    assert Path(imported).parent == install.site / 'bisenet_ros'
    assert unwanted == ''


def test_colcon_puts_the_tools_where_ros2_run_looks(installs):
    folder = installs('colcon').prefix / 'lib' / 'bisenet_ros'

    assert files_below(folder) == tools()
    assert all(os.access(folder / tool, os.X_OK) for tool in tools())


@pytest.mark.parametrize('tool', sorted(tools()))
@pytest.mark.parametrize('begun', ['python -m', 'as an executable'])
def test_a_tool_that_finds_no_ros_says_so_in_a_line(tool, begun):
    start = (f'runpy.run_module("bisenet_ros.{tool}", run_name="__main__", alter_sys=True)'
             if begun == 'python -m' else
             f'import bisenet_ros.{tool} as tool; sys.exit(tool.main())')
    ended = subprocess.run(
        [sys.executable, '-c', 'import runpy, sys; sys.modules["rclpy"] = None; '
         f'sys.argv = ["/somewhere/bin/{tool}", "--help"]; {start}'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=False)

    if tool in ('benchmark', 'devices'):
        assert (ended.returncode, ended.stderr) == (0, '')
    else:
        assert (ended.returncode, ended.stdout) == (1, '')
        assert ended.stderr.startswith(f'{tool}: no ROS 2 in this Python (rclpy is missing): ')
        assert ended.stderr.count('\n') == 1


def test_whoever_imports_a_node_without_ros_gets_an_import_error():
    ended = subprocess.run(
        [sys.executable, '-c', 'import sys; sys.modules["rclpy"] = None\n'
         'try:\n    import bisenet_ros.replay\nexcept ImportError as error:\n    print(error)'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=True)

    assert ended.stdout.startswith('no ROS 2 in this Python')


def test_a_ros_that_lacks_something_else_keeps_its_stack(tmp_path):
    (tmp_path / 'rclpy.py').write_text('import nowhere_to_be_found\n')
    ended = subprocess.run(
        [sys.executable, '-m', 'bisenet_ros.replay'], capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'})

    assert ended.returncode == 1
    assert "No module named 'nowhere_to_be_found'" in ended.stderr
    assert 'Traceback' in ended.stderr


def test_colcon_sees_a_ros_package(installs):
    pytest.importorskip('colcon_package_information')
    workspace = installs('colcon').prefix.parents[1]

    listed = installed_trees.run(
        [sys.executable, '-m', 'colcon', '--log-base', 'log', 'list', '--base-paths', 'src'],
        workspace)

    assert listed.split() == ['bisenet_ros', 'src', '(ros.ament_python)']


def test_pip_registers_no_command(installs):
    metadata, = installs('pip').site.glob('bisenet_ros-*.dist-info')

    assert not (metadata / 'entry_points.txt').exists()


def test_pip_keeps_training_libraries_in_their_extra(installs):
    metadata, = installs('pip').site.glob('bisenet_ros-*.dist-info/METADATA')
    lines = metadata.read_text().splitlines()

    heavy = [line for line in lines if line.startswith('Requires-Dist: ')
             and any(name in line for name in TRAINING_MODULES)]
    assert heavy
    assert [line for line in heavy if 'extra == "train"' not in line] == []


def test_pip_knows_the_extras(installs):
    metadata, = installs('pip').site.glob('bisenet_ros-*.dist-info/METADATA')
    lines = metadata.read_text().splitlines()

    assert {'Provides-Extra: ros', 'Provides-Extra: train', 'Provides-Extra: test'} <= set(lines)


def test_version_is_the_same_everywhere(installs):
    metadata, = installs('pip').site.glob('bisenet_ros-*.dist-info/METADATA')
    module = ast.parse((ROOT / 'bisenet_ros' / '__init__.py').read_text())
    version = next(
        node.value.value for node in module.body if isinstance(node, ast.Assign)
        and node.targets[0].id == '__version__')

    assert PACKAGE.findtext('version') == version
    assert f'Version: {version}' in metadata.read_text().splitlines()


def test_package_xml_is_valid():
    package = pytest.importorskip('catkin_pkg.package')
    warnings = []

    parsed = package.parse_package(str(ROOT / 'package.xml'), warnings=warnings)

    parsed.validate(warnings)
    assert warnings == []
    assert parsed.name == 'bisenet_ros'
    assert parsed.package_format == 3
    assert parsed.get_build_type() == 'ament_python'


def test_package_xml_names_a_file_for_each_licence():
    files = [element.get('file') for element in PACKAGE.findall('license')]

    assert files == ['LICENSE', 'bisenet_ros/models/LICENSE']
    assert all((ROOT / name).read_text() for name in files)


def third_party_imports(folder: str) -> set[str]:
    """Return the packages that a folder's modules import, wherever in them."""
    names = set()
    for path in (ROOT / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split('.')[0])
    return names - sys.stdlib_module_names - {'bisenet_ros'}


@pytest.mark.parametrize(('folder', 'kinds'), [
    ('bisenet_ros', ['exec_depend']),
    ('launch', ['exec_depend']),
    ('test/core', ['exec_depend', 'test_depend']),
    ('test/ros', ['exec_depend', 'test_depend']),
])
def test_package_xml_declares_what_is_imported(folder, kinds):
    declared = {element.text for kind in kinds for element in PACKAGE.findall(kind)}
    own = {path.stem for path in (ROOT / 'test').rglob('*')} | {'training'}
    imported = third_party_imports(folder) - UNDECLARED - own

    assert imported
    assert {KEYS.get(name, name) for name in imported} - declared == set()
