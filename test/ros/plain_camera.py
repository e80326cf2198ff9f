"""A camera and a watcher of masks as others write them: no setting, no QoS but the usual ones."""

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image


def main():
    rclpy.init()
    node = rclpy.create_node('plain')
    camera = node.create_publisher(Image, 'image', qos_profile_sensor_data)
    frame = Image(height=90, width=160, encoding='mono8', step=160, data=bytes(90 * 160))

    def shoot():
        frame.header.stamp = node.get_clock().now().to_msg()
        camera.publish(frame)

    def show(mask):
        print(f'mask {mask.width}x{mask.height}', flush=True)  # noqa: T201

    def look(image):
        print(f'image {image.width}x{image.height}', flush=True)  # noqa: T201

    node.create_timer(0.1, shoot)
    node.create_subscription(Image, 'mask', show, 10)
    node.create_subscription(Image, 'other_image', look, qos_profile_sensor_data)
    rclpy.spin(node)


if __name__ == '__main__':
    main()
