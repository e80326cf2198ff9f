"""
The shipped road model: 256x512, two classes, detail branch 16-32-96.

    python -m training.train --config training/configs/road_256x512.py --data FOLDER

Small inputs first: an epoch at 128x256 costs about a quarter of one at 256x512.
"""

from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((128, 256), 36), Phase((256, 512), 15)),
    train=(('camvid:train', 0.4), ('idd_lite:train', 0.5), ('synthetic:300:1', 0.1)),
    validate=('camvid:val', 'idd_lite:val'),
    precision='mixed_bfloat16',
)
