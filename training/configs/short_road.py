"""
A short schedule at 128x256, to compare presets on equal terms: ``road``.

    python -m training.train --config training/configs/short_road.py --data FOLDER
"""

from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((128, 256), 6),),
    train=(('camvid:train', 0.4), ('idd_lite:train', 0.5), ('synthetic:300:1', 0.1)),
    validate=('camvid:val', 'idd_lite:val'),
    precision='mixed_bfloat16',
)
