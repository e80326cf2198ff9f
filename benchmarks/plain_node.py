"""
A segmentation node as it is usually written: what ``end_to_end.py`` compares with.

Queue of 10, conversion of the whole frame as cv_bridge does it, inference in the callback, float
scores at full size and their argmax. The model is the package's own. Nothing here is slow on
purpose.
"""

from __future__ import annotations

import cv2
import numpy as np
import rclpy
from ai_edge_litert.interpreter import Interpreter
from rclpy.node import Node
from sensor_msgs.msg import Image


class PlainSegmenter:
    """A model of two classes that takes camera bytes, and what is usually done around it."""

    def __init__(self, model: str, num_threads: int) -> None:
        self._interpreter = Interpreter(model, num_threads=num_threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def mask(self, rgb: np.ndarray) -> np.ndarray:
        """Return ``uint8[H, W]``, 255 on the road, of ``uint8[H, W, 3]``."""
        height, width = self._input['shape'][1:3]
        small = cv2.resize(rgb, (int(width), int(height)))
        self._interpreter.set_tensor(self._input['index'], small[None])
        self._interpreter.invoke()
        scale, zero_point = self._output['quantization']
        scores = self._interpreter.get_tensor(self._output['index'])[0].astype(np.float32)
        scores = cv2.resize((scores - zero_point) * scale, rgb.shape[1::-1])
        return np.argmax(scores, axis=-1).astype(np.uint8) * 255


def imgmsg_to_rgb(msg: Image) -> np.ndarray:
    """Convert a bgr8 message as ``CvBridge().imgmsg_to_cv2(msg, 'rgb8')`` does."""
    bgr = np.ndarray((msg.height, msg.width, 3), np.uint8, msg.data)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def mask_to_imgmsg(mask: np.ndarray) -> Image:
    """Convert a mask as ``CvBridge().cv2_to_imgmsg(mask, 'mono8')`` does."""
    msg = Image(height=mask.shape[0], width=mask.shape[1], encoding='mono8', step=mask.shape[1])
    msg.data.frombytes(mask.tobytes())
    return msg


class PlainNode(Node):
    """Everything in the callback."""

    def __init__(self) -> None:
        super().__init__('plain_segmenter')
        model = self.declare_parameter('model', '').value
        num_threads = self.declare_parameter('num_threads', 1).value
        self._segmenter = PlainSegmenter(model, num_threads)
        self._output = self.create_publisher(Image, 'mask', 10)
        self.create_subscription(Image, 'image', self._on_image, 10)

    def _on_image(self, msg: Image) -> None:
        mask = mask_to_imgmsg(self._segmenter.mask(imgmsg_to_rgb(msg)))
        mask.header = msg.header
        self._output.publish(mask)


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    node = PlainNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
