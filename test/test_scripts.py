"""
The shell scripts on machines that lack something, each simulated; nothing is installed.

The Pythons on the simulated machines are the real one with something taken away or added before
the scripts' question runs in it; their venv and pip only write down what they were asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What the scripts need beside a Python; every Debian has it.
TOOLS = (
    'bash', 'cat', 'cp', 'dirname', 'env', 'flock', 'grep', 'ls', 'mkdir', 'readlink', 'rm', 'sed',
    'sha256sum', 'sleep', 'tail', 'tee', 'touch', 'true')

#: Stands in for a Python. PRELUDE runs before any `-c`; `-m venv` makes a copy of it.
PYTHON = r"""#!/bin/bash
me=${0#"$MACHINE"/}
if [ "$1" = -c ]; then
    echo "$me -c" >>"$MACHINE/log"
    exec @REAL -S -c @PRELUDE "${@:2}"
fi
echo "$me $*" >>"$MACHINE/log"
case $2 in
venv)
    mkdir "${@: -1}/bin"
    cp "$0" "${@: -1}/bin/python"
    ;;
pip)
    if [[ $0 != */.venv*/bin/python ]]; then
        echo 'error: externally-managed-environment'
        exit 1
    fi
    echo "pip sees PIP_USER=$PIP_USER PYTHONPATH=${PYTHONPATH:-}" >>"$MACHINE/log"
    . "$MACHINE/pip"
    ;;
*)
    echo "ran $*"
    . "$MACHINE/tool"
    ;;
esac
"""

PRELUDE = """
import sys, types
def module(name): sys.modules[name] = types.ModuleType(name)
def without(name): sys.modules[name] = None
def version(minor): sys.version_info = (3, minor, 9, 'final', 0)
version(12)
for name in ('bisenet_ros', 'rclpy', 'sensor_msgs', 'sensor_msgs.msg'): module(name)
without('numpy')
{changes}
exec(sys.argv.pop(1))
"""

#: A sourced ROS 2.
SOURCED = {'AMENT_PREFIX_PATH': '/opt/ros/jazzy', 'ROS_DISTRO': 'jazzy', 'ROS_VERSION': '2',
           'PYTHONPATH': '/opt/ros/jazzy/lib/python3.12/site-packages'}


class Machine:
    """A folder that is all a script sees: a clone and a PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = folder / 'a clone'
        self.bin = folder / 'bin'
        self.bin.mkdir()
        self.clone.mkdir()
        for name in ('demo.sh', 'test.sh', 'pyproject.toml', 'setup.py', 'setup.cfg'):
            shutil.copy(ROOT / name, self.clone)
        for name in ('.ci', 'scripts'):
            shutil.copytree(ROOT / name, self.clone / name)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f'no {tool} here'))
        (folder / 'log').touch()
        self.uname('Linux x86_64')
        self.pip(':')
        self.tool(':')

    def uname(self, answer: str) -> None:
        self._executable('uname', f'#!/bin/bash\necho {answer}\n')

    def python(self, name: str = 'python3', changes: str = '') -> None:
        """Install a Python, 3.12 with everything but for ``changes`` (Python code)."""
        prelude = PRELUDE.format(changes=changes)
        text = PYTHON.replace('@REAL', shlex.quote(sys.executable))
        self._executable(name, text.replace('@PRELUDE', shlex.quote(prelude)))

    def pip(self, code: str) -> None:
        """Say what pip does (bash)."""
        (self.folder / 'pip').write_text(code + '\n')

    def tool(self, code: str) -> None:
        """Say what any other ``python -m`` does (bash, ``$2`` is the module)."""
        (self.folder / 'tool').write_text(code + '\n')

    def _executable(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {'PATH': str(self.bin), 'HOME': str(self.folder), 'MACHINE': str(self.folder),
                **extra}

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        (self.folder / 'log').write_text('')
        return subprocess.run(
            ['bash', str(self.clone / command[0]), *command[1:]], cwd=self.folder, text=True,
            env=self.environment(environ), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=60)

    def log(self) -> str:
        return (self.folder / 'log').read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with which a script refused to go on."""
    assert result.returncode == 1
    assert result.stdout == ''
    line, = result.stderr.splitlines()
    return line


# -- what is found --------------------------------------------------------------------------------

def test_a_first_start_installs_and_starts_the_demo(machine: Machine) -> None:
    machine.python()
    result = machine.run('demo.sh', 'a video.mp4', '--seconds', '3')
    assert result.returncode == 0, result.stderr
    assert result.stdout == 'ran -m bisenet_ros.demo a video.mp4 --seconds 3\n'
    assert 'installing into .venv' in result.stderr
    assert re.search(r'bin/python3 -m venv /.*/a clone/\.venv\n', machine.log())
    assert re.search(
        r'-m pip install .*--constraint .*/scripts/constraints\.txt '
        r'--editable .*/a clone\[ros\]\n', machine.log())


def test_a_second_start_installs_nothing(machine: Machine) -> None:
    machine.python()
    machine.run('demo.sh')
    result = machine.run('demo.sh')
    assert result.stderr == ''
    assert machine.log().splitlines() == [
        'bin/python3 -c', 'a clone/.venv/bin/python -m bisenet_ros.demo']


def test_an_older_python3_is_passed_over(machine: Machine) -> None:
    machine.python('python3', 'version(9)')
    machine.python('python3.11', 'version(11)')
    assert machine.run('demo.sh').returncode == 0
    assert 'bin/python3.11 -m venv' in machine.log()


def test_the_named_python_is_used(machine: Machine) -> None:
    machine.python('python3')
    machine.python('mine')
    assert machine.run('demo.sh', PYTHON='mine').returncode == 0
    assert 'bin/mine -m venv' in machine.log()
    assert 'bin/python3' not in machine.log()


@pytest.mark.parametrize('script', ['demo.sh', 'test.sh'])
def test_a_pip_that_the_system_blocks_is_not_needed(machine: Machine, script: str) -> None:
    """On Debian 12 pip refuses outside a virtual environment: only the one inside is asked."""
    machine.python()
    blocked = subprocess.run(
        [str(machine.bin / 'python3'), '-m', 'pip', 'install', 'x'], text=True,
        env=machine.environment({}), capture_output=True)
    assert 'externally-managed' in blocked.stdout
    machine.tool('echo "3 passed"')
    assert machine.run(script, PIP_USER='1').returncode == 0
    assert 'pip sees PIP_USER=0' in machine.log()


def test_a_sourced_ros_is_used_and_not_mixed_with_the_wheels(machine: Machine) -> None:
    machine.uname('Linux aarch64')
    machine.python('python3', 'version(14)')  # newer than the wheels: its ROS 2 decides
    assert machine.run('demo.sh', **SOURCED).returncode == 0
    assert ' -m venv --system-site-packages ' in machine.log()
    assert re.search(r'-m pip install --no-input --editable .*/a clone\n', machine.log())
    assert f'PYTHONPATH={SOURCED["PYTHONPATH"]}' in machine.log()


def test_the_tests_use_a_sourced_ros_too(machine: Machine) -> None:
    machine.python()
    machine.tool('echo "3 passed"')
    assert machine.run('test.sh', **SOURCED).returncode == 0
    assert re.search(r'--editable .*/a clone\[train,test\]\n', machine.log())


def test_numpy_1_of_a_sourced_ros_is_kept(machine: Machine) -> None:
    machine.python(changes='module("numpy"); sys.modules["numpy"].__version__ = "1.26.4"')
    machine.run('demo.sh', **SOURCED)
    pins = re.search(r'--constraint (.*constraints\.txt)', machine.log())
    assert pins is not None
    assert Path(pins[1]).read_text() == 'numpy<2\n'


def test_paths_of_others_do_not_reach_the_wheels(machine: Machine) -> None:
    machine.python()
    machine.tool('echo "path ${PYTHONPATH:-none} ${LD_LIBRARY_PATH:-none}" '
                 '"${RMW_IMPLEMENTATION:-none} ${ROS_DISTRO:-none}"')
    result = machine.run(
        'demo.sh', PYTHONPATH='/elsewhere', LD_LIBRARY_PATH='/other/ros_rcl.libs',
        _ROS_WHEELS_BOOTSTRAP_COMPLETE='1', RMW_IMPLEMENTATION='rmw_cyclonedds_cpp',
        ROS_DISTRO='humble', ROS_VERSION='2')
    assert 'path none none none none' in result.stdout
    assert 'RMW_IMPLEMENTATION=rmw_cyclonedds_cpp is left out: PyPI' in result.stderr


# -- what is missing ------------------------------------------------------------------------------

def test_no_python(machine: Machine) -> None:
    assert re.search(r'found no Python, needed is Python 3\.10 to 3\.13; .*apt install python3 ',
                     refused(machine.run('demo.sh')))


def test_a_named_python_that_does_not_exist(machine: Machine) -> None:
    machine.python()
    assert 'PYTHON is /not/there, and no Python starts by that name' in refused(
        machine.run('demo.sh', PYTHON='/not/there'))


@pytest.mark.parametrize('script', ['demo.sh', 'test.sh'])
def test_only_wrong_pythons(machine: Machine, script: str) -> None:
    machine.python('python3', 'version(8)')
    machine.python('python3.13', 'version(15)')
    message = refused(machine.run(script))
    assert message.startswith(
        f'{script}: found python3 (3.8), python3.13 (3.15), needed is Python 3.10 to 3.13;')
    assert 'sudo apt install python3.12' in message
    assert not list(machine.clone.glob('.venv*'))


def test_no_venv_module(machine: Machine) -> None:
    machine.python('python3', 'without("ensurepip")')
    machine.python('python3.12', 'without("ensurepip")')  # the same one
    message = refused(machine.run('demo.sh'))
    assert message.startswith('demo.sh: python3 (3.12) cannot make virtual environments')
    assert 'sudo apt install python3-venv (or python3.12-venv)' in message
    assert not (machine.clone / '.venv').exists()


def test_a_venv_that_cannot_be_made(machine: Machine) -> None:
    machine.python()
    path = machine.bin / 'python3'
    path.write_text(path.read_text().replace('mkdir ', 'echo no room; exit 3 #'))
    result = machine.run('demo.sh')
    assert result.returncode == 1
    assert '    no room\ndemo.sh: could not make a virtual environment.' in result.stderr


def test_aarch64_without_ros(machine: Machine) -> None:
    machine.uname('Linux aarch64')
    machine.python()
    message = refused(machine.run('demo.sh'))
    assert 'this machine is Linux aarch64, and PyPI has ROS 2 for Linux x86_64 only' in message
    assert 'source it (. /opt/ros/<distribution>/setup.bash)' in message


def test_a_sourced_ros_that_no_python_imports(machine: Machine) -> None:
    machine.python(changes='without("rclpy")')
    message = refused(machine.run('demo.sh', **SOURCED))
    assert 'ROS 2 jazzy is sourced, but python3 (3.12) cannot import its rclpy' in message
    assert 'install ros-jazzy-rclpy' in message
    assert not (machine.clone / '.venv').exists()


def test_ros_1(machine: Machine) -> None:
    machine.python()
    message = refused(machine.run('demo.sh', ROS_VERSION='1', ROS_DISTRO='noetic'))
    assert 'ROS 1 (noetic) is sourced' in message


@pytest.mark.parametrize(('says', 'cause'), [
    ('WARNING: Retrying ... NewConnectionError: Name or service not known',
     'The package index was not reached: check the network'),
    ('OSError: [Errno 28] No space left on device', 'The disk is full.'),
    ('ERROR: No matching distribution found for x', 'A package has no build for this Python'),
    ('ERROR: something else', 'The whole log: '),
])
def test_pip_fails(machine: Machine, says: str, cause: str) -> None:
    machine.python()
    machine.pip(f'echo {shlex.quote(says)}; exit 1')
    result = machine.run('demo.sh')
    assert result.returncode == 1
    assert f'    {says}\ndemo.sh: could not install the packages.' in result.stderr
    assert cause in result.stderr
    log = re.search(r'The whole log: (.*)\n', result.stderr)
    assert log is not None
    assert says in Path(log[1]).read_text()


def test_what_was_installed_does_not_import(machine: Machine) -> None:
    machine.python(changes='without("bisenet_ros")')
    result = machine.run('demo.sh')
    assert result.returncode == 1
    assert 'ModuleNotFoundError' in result.stderr
    assert 'could not import what was installed' in result.stderr
    assert machine.run('demo.sh').returncode == 1, 'taken for complete'


# -- again ----------------------------------------------------------------------------------------

def test_a_failed_installation_is_made_from_scratch(machine: Machine) -> None:
    machine.python()
    machine.pip('touch "${0%/*}/half"; exit 1')
    machine.run('demo.sh')
    half = machine.clone / '.venv/bin/half'
    assert half.exists()
    machine.pip(':')
    assert machine.run('demo.sh').returncode == 0
    assert not half.exists()


@pytest.mark.parametrize('killed_with', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_installation_is_made_from_scratch(
    machine: Machine, killed_with: signal.Signals,
) -> None:
    machine.python()
    machine.pip('touch "${0%/*}/half"; exec sleep 60')
    half = machine.clone / '.venv/bin/half'
    script = subprocess.Popen(
        ['bash', str(machine.clone / 'demo.sh')], env=machine.environment({}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    with contextlib.ExitStack() as stack:
        stack.callback(_kill_group, script)
        deadline_s = time.monotonic() + 30
        while not half.exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        os.killpg(script.pid, killed_with)
        stdout, stderr = script.communicate(timeout=30)
    assert stdout == ''
    if killed_with != signal.SIGKILL:
        assert script.returncode == 1
        assert stderr.splitlines()[-1] == (
            'demo.sh: interrupted; the next start installs anew.')
    machine.pip(':')
    assert machine.run('demo.sh').returncode == 0
    assert not half.exists()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_changed_requirements_are_installed_into_what_is_there(machine: Machine) -> None:
    machine.python()
    machine.run('demo.sh')
    kept = machine.clone / '.venv/kept'
    kept.touch()
    with (machine.clone / 'setup.py').open('a') as file:
        file.write('# another requirement\n')
    machine.run('demo.sh')
    assert '-m pip install' in machine.log()
    assert kept.exists()


@pytest.mark.parametrize('change', ['python', 'ros', 'place'])
def test_another_python_ros_or_place_makes_it_anew(machine: Machine, change: str) -> None:
    machine.python()
    machine.run('demo.sh')
    kept = machine.clone / '.venv/kept'
    kept.touch()
    if change == 'python':
        machine.python(changes='version(11)')
    if change == 'place':
        machine.clone = machine.clone.rename(machine.folder / 'moved')
    assert machine.run('demo.sh', **(SOURCED if change == 'ros' else {})).returncode == 0
    assert ' -m venv' in machine.log()
    assert not (machine.clone / '.venv/kept').exists()


def test_an_environment_of_the_users_own_is_left_alone(machine: Machine) -> None:
    machine.python()
    own = machine.clone / '.venv/pyvenv.cfg'
    own.parent.mkdir()
    own.touch()
    assert '.venv was not made by this script' in refused(machine.run('demo.sh'))
    assert own.exists()


# -- the scripts themselves -----------------------------------------------------------------------

def test_help_of_the_demo_needs_nothing_and_names_every_option(machine: Machine) -> None:
    from bisenet_ros import demo

    result = machine.run('demo.sh', 'x.mp4', '--help')
    assert result.returncode == 0
    for option in re.findall(r'--\w+', demo.parser().format_usage()):
        assert option in result.stdout
    assert machine.log() == ''


def test_help_of_the_tests_needs_nothing(machine: Machine) -> None:
    result = machine.run('test.sh', '--help')
    assert result.returncode == 0
    assert '--fast' in result.stdout
    assert machine.log() == ''


def test_fast_leaves_training_out_and_the_rest_goes_to_pytest(machine: Machine) -> None:
    machine.python()
    machine.tool('[ "$2" != pytest ] || echo "3 passed, 1 skipped in 0.1s"')
    result = machine.run('test.sh', '--fast', '-k', 'a name')
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == '3 passed, 1 skipped in 0.1s'
    assert '-m not training -k a name' in machine.log()


@pytest.mark.parametrize('broken', ['ruff', 'mypy', 'pytest'])
def test_each_check_fails_the_run_and_the_count_stays_last(
    machine: Machine, broken: str,
) -> None:
    machine.python()
    machine.tool(f'[ "$2" != pytest ] || echo "3 passed"; [ "$2" != {broken} ]')
    result = machine.run('test.sh')
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == '3 passed'
    assert (f'{broken} found faults' in result.stdout) == (broken != 'pytest')


def test_continuous_integration_runs_the_tests_without_input(machine: Machine) -> None:
    (machine.clone / 'test.sh').write_text(
        '#!/bin/bash\nread -r line || echo "CI=$CI, no input, $# arguments"\n')
    assert machine.run('.ci/run').stdout == 'CI=true, no input, 0 arguments\n'
