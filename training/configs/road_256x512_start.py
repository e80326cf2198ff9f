"""
What the shipped road models start from: 256x512, two classes, detail branch 16-32-96.

    python -m training.train --config training/configs/road_256x512_start.py --data FOLDER

Small inputs first: an epoch at 128x256 costs about a quarter of one at 256x512.

The run that was used, at commit 161a032: 87 minutes on 2 cores of an AMD EPYC (Zen 4) shared
with other work; 20 to 45 views a second at 128x256, 7 to 10 at 256x512. Best epoch 42, which that
commit chose on camvid:val alone: road IoU 0.963; int8 0.963. Reported afterwards, never chosen on:
camvid:test 0.910 (Seq05VD 0.918), idd_lite:val 0.910. Its history:
docs/figures/road_256x512_start_history.csv. Today the mean over both validation sets chooses: of
that history epoch 51, with 0.961 on camvid:val and 0.915 on idd_lite:val, so a rebuild's
``best.keras`` is another one than that of epoch 42.
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
