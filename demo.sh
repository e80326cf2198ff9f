#!/usr/bin/env bash
# From a fresh clone to road masks: prepares .venv and starts the demonstration, bisenet_ros/demo.py.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
. "$root/scripts/setup.sh"

for argument; do
    case $argument in
    -h | --help)
        cat <<END
usage: ./demo.sh [SOURCE] [--seconds S] [--rate HZ] [--output FOLDER]

Prepares .venv on its first start, then runs the package as two ROS 2 nodes in two processes,
prints rate and latency and writes a picture and a clip of the masks.

  SOURCE             a video, a folder of images, or a camera device (/dev/video0, or its number);
                     without it a drive is rendered
  --seconds S        end this long after the first mask if the source has not ended before; 0: only
                     with the source or Ctrl-C (default: 15)
  --rate HZ          frames per second (default: the source's own)
  --output FOLDER    where overlay.png and overlay.mp4 go (default: demo_output)

Uses the ROS 2 that is sourced in this terminal, or else the one on PyPI.
PYTHON=/path/to/python ./demo.sh names the Python to make .venv with (3.10 to 3.13).
END
        exit
        ;;
    esac
done

prepare_environment .venv ''

# A signal that comes while Python still imports waits until the demonstration can answer it.
if env --block-signal=INT,TERM true 2>/dev/null; then
    exec env --block-signal=INT,TERM "$python" -m bisenet_ros.demo "$@"
fi
exec "$python" -m bisenet_ros.demo "$@"
