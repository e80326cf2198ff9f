"""Finding EdgeTPUs, and saying what keeps them from working."""

import re
import shutil
import subprocess
import sys

import pytest
from standin import library

from bisenet_ros import devices as tool
from bisenet_ros.core import devices, edgetpu_library
from bisenet_ros.core.devices import EdgeTpu, Problem, Survey


class Machine:
    """A made-up /sys and /dev."""

    def __init__(self, folder):
        self.sysfs, self.dev = folder / 'sys', folder / 'dev'
        self.sysfs.mkdir()
        self.dev.mkdir()

    def _write(self, folder, **files):
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(f'{text}\n')

    def usb(self, place='2-1', ids='18d1:9302', speed=5000, bus=2, number=7, node=True):
        vendor, product = ids.split(':')
        self._write(self.sysfs / 'bus' / 'usb' / 'devices' / place, idVendor=vendor,
                    idProduct=product, speed=speed, busnum=bus, devnum=number)
        if node:
            folder = self.dev / 'bus' / 'usb' / f'{bus:03}'
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f'{number:03}').touch()

    def apex(self, index=0, millidegrees=46800):
        self._write(self.sysfs / 'class' / 'apex' / f'apex_{index}', temp=millidegrees)
        (self.dev / f'apex_{index}').touch()

    def pci_card(self, place='0000:03:00.0'):
        self._write(self.sysfs / 'bus' / 'pci' / 'devices' / place, vendor='0x1ac1',
                    device='0x089a')

    def devices(self):
        return devices.sysfs_devices(self.sysfs, self.dev)

    def survey(self, name='libnothing.so.1'):
        return devices.survey(name, self.sysfs, self.dev)

    def look(self):
        """Survey without the process that would ask a library."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, '_ask_library', lambda name: {})
            return self.survey()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Give a function that says how the stand-in for libedgetpu behaves."""
    control = tmp_path / 'control'
    monkeypatch.setenv('STANDIN_CONTROL', str(control))
    control.touch()
    return control.write_text


@pytest.fixture
def no_permission(monkeypatch):
    monkeypatch.setattr(devices.os, 'access', lambda path, mode: False)


@pytest.fixture
def pycoral(tmp_path, monkeypatch):
    """Give a function that installs a ``pycoral``."""
    def install(files):
        package = tmp_path / 'site' / 'pycoral'
        for name, text in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path / 'site'))

    return install


def problem(survey, text):
    """Return the only problem with a text in it."""
    (found,) = [problem for problem in survey.problems if text in problem.what]
    return found


# -- sysfs -----------------------------------------------------------------------------------


def test_empty_machine_has_nothing(machine):
    assert machine.devices() == []


def test_stick_is_found_with_speed_and_state(machine):
    machine.usb()
    machine.usb('1-4', '1a6e:089a', speed=480, bus=1, number=12)
    machine.usb('1-2', '046d:c52b', bus=1, number=3)  # a mouse

    waiting, ready = machine.devices()

    assert waiting == EdgeTpu(
        'usb:0', str(machine.sysfs / 'bus/usb/devices/1-4'), str(machine.dev / 'bus/usb/001/012'),
        'waits for its firmware', 480, None, True)
    assert (ready.name, ready.state, ready.speed_mbit_s) == ('usb:1', 'ready', 5000)
    assert ready.kind == 'usb'


def test_card_is_found_with_temperature(machine):
    machine.apex()
    machine.apex(10, millidegrees='hot')  # a driver that does not tell
    machine.apex(2)

    assert [(device.name, device.path, device.temperature_c) for device in machine.devices()] == [
        ('pci:0', str(machine.dev / 'apex_0'), 46.8),
        ('pci:1', str(machine.dev / 'apex_2'), 46.8),
        ('pci:2', str(machine.dev / 'apex_10'), None)]


# -- the library -----------------------------------------------------------------------------


def test_without_a_library_sysfs_lists_and_the_package_is_named(machine):
    machine.usb()
    found = machine.survey()

    assert (found.source, found.version) == ('sysfs', '')
    assert [device.name for device in found.devices] == ['usb:0']
    assert problem(found, 'cannot open shared object').remedy == devices.INSTALL_LIBRARY


def test_library_lists_and_sysfs_adds_what_it_knows(machine, stand_in):
    machine.usb('2-1')
    machine.apex()
    stand_in('usb=2 pci=1')
    found = machine.survey(str(library()))

    assert found.source == 'libedgetpu'
    assert found.version == 'BuildLabel(stand-in), RuntimeVersion(14)'
    assert [(device.name, device.path, device.speed_mbit_s, device.temperature_c)
            for device in found.devices] == [
        ('pci:0', '/dev/apex_0', 0, 46.8),
        ('usb:0', '/sys/bus/usb/devices/2-1', 5000, None),
        ('usb:1', '/sys/bus/usb/devices/2-2', 0, None)]
    assert found.problems == ()


def test_device_that_the_library_does_not_list_is_a_problem(machine, stand_in):
    machine.usb('3-3')
    stand_in('usb=0')
    found = machine.survey(str(library()))

    assert 'replug it' in problem(found, '3-3: the kernel sees an EdgeTPU that libedgetpu').remedy


def test_library_that_aborts_takes_nobody_along(machine, stand_in):
    machine.usb()
    stand_in('abort_list')
    found = machine.survey(str(library()))

    assert found.source == 'sysfs'
    assert 'replug' in problem(found, 'USB transfer error 1').remedy


def test_library_that_hangs_is_not_waited_for(machine, stand_in, monkeypatch):
    monkeypatch.setattr(devices, 'QUERY_TIMEOUT_S', 0.5)
    stand_in('hang_list')
    found = machine.survey(str(library()))

    assert 'replug' in problem(found, 'did not list its devices within 0.5 s').remedy


def test_other_library_is_told(machine):
    assert 'libm.so.6 is no libedgetpu' in problem(machine.survey('libm.so.6'), 'libm').what


# -- pycoral ---------------------------------------------------------------------------------


def test_pycoral_lists_where_it_is_installed(machine, stand_in, pycoral):
    pycoral({'__init__.py': '', 'utils/__init__.py': '', 'utils/edgetpu.py': '''
def list_edge_tpus():
    return [{'type': 'usb', 'path': '/sys/bus/usb/devices/9-9'}]
'''})
    found = machine.survey(str(library()))

    assert found.source == 'pycoral'
    assert [(device.name, device.path) for device in found.devices] == [
        ('usb:0', '/sys/bus/usb/devices/9-9')]


def test_pycoral_for_another_python_is_passed_over(machine, stand_in, pycoral):
    pycoral({'__init__.py': '', 'utils/__init__.py': '',
             'utils/edgetpu.py': 'import _pywrap_coral_of_another_python'})
    found = machine.survey(str(library()))

    assert found.source == 'libedgetpu'
    assert 'libedgetpu was asked' in problem(found, 'pycoral is installed but cannot').remedy


def test_unrelated_pycoral_is_detected_and_never_run(machine, pycoral):
    pycoral({'__init__.py': 'raise SystemExit("the other program runs")', 'cli.py': ''})

    assert edgetpu_library.pycoral_kind() == 'unrelated'
    assert 'pip uninstall pycoral' in problem(machine.look(), 'unrelated program').remedy


def test_no_pycoral_is_no_problem(machine):
    assert edgetpu_library.pycoral_kind() == ''
    assert not [found for found in machine.look().problems if 'pycoral' in found.what]


# -- problems --------------------------------------------------------------------------------


def test_no_permission_for_a_stick_gives_the_rule_and_the_group(machine, no_permission):
    machine.usb()
    found = problem(machine.look(), 'usb:0: no permission for')

    for part in ('1a6e', '18d1', 'udevadm control --reload-rules', 'usermod -aG plugdev'):
        assert part in found.remedy


def test_no_permission_for_a_card_gives_the_rule_and_the_group(machine, no_permission):
    machine.apex()
    found = problem(machine.look(), 'pci:0: no permission for')

    assert 'SUBSYSTEM=="apex"' in found.remedy
    assert 'usermod -aG apex' in found.remedy


def test_remedy_is_a_command_that_a_shell_can_read(machine, no_permission):
    machine.usb()
    command, _, rest = problem(machine.look(), 'no permission').remedy.partition(', then ')

    subprocess.run(['sh', '-n', '-c', command], check=True)
    assert rest == 'log out and in again'
    rules = subprocess.run(
        ['sh', '-c', re.search(r"printf '.*?'(?: '.*?')+", command).group()], check=True,
        capture_output=True, text=True).stdout
    assert rules.splitlines() == list(devices._RULES['usb'])


def test_container_without_the_bus_gives_the_option(machine, no_permission):
    machine.usb(node=False)

    assert '-v /dev/bus/usb' in problem(machine.look(), 'does not exist').remedy


def test_usb_2_is_told_for_a_stick_that_is_ready(machine):
    machine.usb('1-1', speed=480)
    machine.usb('1-2', '1a6e:089a', speed=480, number=8)  # without firmware it is always slow

    assert 'USB 3 port' in problem(machine.look(), '480 Mbit/s, which is USB 2').remedy


def test_heat_is_told(machine):
    machine.apex(0, 91000)
    machine.apex(1, 60000)

    assert 'cool it' in problem(machine.look(), 'pci:0: 91 degrees C').remedy


def test_card_without_driver_is_told(machine):
    machine.pci_card()

    assert 'gasket-dkms' in problem(machine.look(), '0000:03:00.0: a PCIe EdgeTPU').remedy


def test_nothing_at_all_is_told(machine):
    assert 'plug it in' in problem(machine.look(), 'no EdgeTPU found').remedy


# -- why a device did not open ---------------------------------------------------------------


def test_refusal_names_missing_permission(machine, no_permission):
    machine.usb('2-1')
    listed = [('usb:0', '/sys/bus/usb/devices/2-1')]

    assert devices.refusal('usb', listed, machine.sysfs, machine.dev) == (
        f'no permission for {machine.dev}/bus/usb/002/007: add the udev rule and join the group '
        'plugdev (python3 -m bisenet_ros.devices prints the commands)')


def test_refusal_of_one_device_is_not_that_of_another(machine, no_permission):
    machine.apex()
    machine.usb('2-1')
    listed = [('pci:0', '/dev/apex_0'), ('usb:0', '/sys/bus/usb/devices/2-1')]

    assert 'the group apex' in devices.refusal('pci', listed, machine.sysfs, machine.dev)
    assert 'the group plugdev' in devices.refusal('usb:0', listed, machine.sysfs, machine.dev)
    assert devices.refusal('usb:1', listed, machine.sysfs, machine.dev) == (
        'no such EdgeTPU is plugged in (found: pci:0, usb:0); plug it in, or see python3 -m '
        'bisenet_ros.devices')


# -- the tool --------------------------------------------------------------------------------


def test_report_shows_everything():
    stick = EdgeTpu('usb:0', '/sys/2-1', '/dev/bus/usb/002/007', 'ready', 480, None, False)
    card = EdgeTpu('pci:0', '/dev/apex_0', '/dev/apex_0', 'ready', 0, 46.8, True)
    survey = Survey((card, stick), 'libedgetpu', 'RuntimeVersion(14)', (Problem('P', 'R'),))

    assert tool.report(survey, 'ai_edge_litert 2.3.0').splitlines() == [
        'runtime     ai_edge_litert 2.3.0',
        'libedgetpu  RuntimeVersion(14)',
        'EdgeTPUs    2 (listed by libedgetpu)',
        '  pci:0  /dev/apex_0  ready, /dev/apex_0, 46.8 degrees C, accessible',
        '  usb:0  /sys/2-1  ready, /dev/bus/usb/002/007, 480 Mbit/s, no permission',
        'problem: P',
        '  mend it: R']


@pytest.mark.parametrize(('words', 'code'), [('', 0), ('usb=0', 1)])
def test_tool_tells_by_its_exit_code_whether_a_device_is_usable(stand_in, capsys, words, code):
    stand_in(words)

    assert tool.main(['--library', str(library())]) == code
    assert 'RuntimeVersion(14)' in capsys.readouterr().out


def test_tool_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, '-m', 'bisenet_ros.devices', '--library', 'libnothing.so.1'],
        capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert 'libedgetpu  not loaded' in done.stdout
    assert done.stderr == ''


def test_stand_in_has_the_exports_of_libedgetpu():
    if shutil.which('nm') is None:
        pytest.skip('no nm: exports cannot be listed')
    listed = subprocess.run(
        ['nm', '-D', '--defined-only', library()], check=True, capture_output=True, text=True)

    assert {line.split()[-1] for line in listed.stdout.splitlines()} == {
        'tflite_plugin_create_delegate', 'tflite_plugin_destroy_delegate',
        'edgetpu_list_devices', 'edgetpu_free_devices', 'edgetpu_version', 'edgetpu_verbosity'}
