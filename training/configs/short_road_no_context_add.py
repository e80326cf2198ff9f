"""
A short schedule at 128x256, to compare presets on equal terms: ``road_no_context_add``.

    python -m training.train --config training/configs/short_road_no_context_add.py --data FOLDER

Run once, on 2 cores of an AMD EPYC (Zen 4) at idle priority, in 10 to 20 minutes. Road IoU at
128x256 after the last epoch, camvid:val / idd_lite:val: 0.801 / 0.864.
"""

from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road_no_context_add'],
    phases=(Phase((128, 256), 6),),
    train=(('camvid:train', 0.4), ('idd_lite:train', 0.5), ('synthetic:300:1', 0.1)),
    validate=('camvid:val', 'idd_lite:val'),
    precision='mixed_bfloat16',
)
