"""
Segment several cameras in one process, on one engine.

    ros2 run bisenet_ros cameras --ros-args -p cameras:="[front, rear]" -r /rear/image:=/d435/image

Every camera has a ``segmenter`` node of its own in a namespace of its own (``/front/segmenter``),
with its own topics, parameters, lifecycle, diagnostics and thread: what holds up one of them holds
up no other. The model is loaded once and an EdgeTPU opened once; cameras with a new frame take
turns. What is given for ``cameras`` on the command line holds for all (``-p model:=...``); a
parameter file tells them apart by their names (``/front/segmenter:``).
"""

from __future__ import annotations

import sys
import threading

from bisenet_ros import needs_ros  # noqa: F401 - before all of ROS

from rclpy.node import Node
from rclpy.parameter import Parameter

from bisenet_ros import camera_names, parameters, process
from bisenet_ros.core.shared import EnginePool
from bisenet_ros.segmenter import LAST_FRAME_S, SegmenterNode


class CamerasNode(Node):
    """The node ``cameras``: it makes the segmenters and ends them; it has no topics itself."""

    def __init__(self) -> None:
        super().__init__('cameras')
        names = self.declare_parameter(
            parameters.CAMERAS.name, Parameter.Type.STRING_ARRAY,
            parameters.descriptor(parameters.CAMERAS, read_only=True)).value or []
        if not camera_names.fits(names):
            raise process.StartError(
                f'parameter cameras: found {list(names)}, expected {camera_names.EXPECTED}; '
                'give -p cameras:="[front, rear]".')
        self._pool = EnginePool()
        self.segmenters = [self._segmenter(name) for name in names]
        self._spinners: list[process.Spinner] = []

    def _segmenter(self, camera: str) -> SegmenterNode:
        namespace = f'{self.get_namespace().rstrip("/")}/{camera}'
        # Rules of the node itself come before those of the process: with `-r __ns:=/robot`, which
        # launch gives, all would have the same name.
        return SegmenterNode(
            self._pool.open, rules_begin=f'{namespace}/', namespace=namespace,
            cli_args=['--ros-args', '-r', f'__ns:={namespace}', '-r', '__node:=segmenter'])

    def begin(self) -> None:
        """Let every segmenter begin; ``StartError`` if one cannot."""
        for segmenter in self.segmenters:
            try:
                segmenter.begin()
            except process.StartError as error:
                raise process.StartError(
                    f'{segmenter.get_fully_qualified_name()}: {error}') from error
            if process.stopping.is_set():
                return
            self._spinners.append(process.Spinner(segmenter))

    @property
    def finished(self) -> bool:
        """Whether every segmenter was shut down; raises what ended one's thread."""
        for spinner in self._spinners:
            spinner.check()
        return all(segmenter.finished for segmenter in self.segmenters)

    def end(self) -> None:
        """Stop all work; a device that holds up one frame holds up the others only once."""
        overdue = threading.Timer(LAST_FRAME_S, self._pool.close)
        overdue.start()
        for spinner in self._spinners:
            spinner.ask_to_end()
        for spinner in self._spinners:
            spinner.end()
        for segmenter in self.segmenters:
            segmenter.end()
        overdue.cancel()
        overdue.join()

    def destroy_node(self) -> None:
        """Take the segmenters down, too."""
        for segmenter in self.segmenters:
            segmenter.destroy_node()
        super().destroy_node()


def main(args: list[str] | None = None) -> int:
    """Run until told to stop; return the exit code."""
    return process.run(CamerasNode, args, parameters.help_text(
        [parameters.CAMERAS, *parameters.TABLE]))


if __name__ == '__main__':
    sys.exit(main())
