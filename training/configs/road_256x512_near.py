"""
The road model for robots that persons and things come close to.

The weights of ``road_256x512``, trained on with persons, walls and bushes drawn near the camera
(``training/obstacles.py``), and the same weather.

    python -m training.rebuild road_256x512_near --data FOLDER --output FOLDER

The run that was used, with the training code of commit 84bb1f7: 32 minutes on 2 cores of an AMD
EPYC (Zen 4), in part beside other work; 9 to 14 views a second. Best epoch 7 of 7 by the mean over
both validation sets, road IoU 0.969 on camvid:val, 0.929 on idd_lite:val. What ships is the mean
of the weights after the last epoch, 0.85, and those of ``road_256x512_calm``, 0.15: 0.969 and
0.929; in one frame of four with obstacles drawn 0.924 and 0.886 (``road_256x512``: 0.836, 0.735),
with wet roads 0.924 and 0.889 (0.909, 0.892), with an own vehicle 0.904 and 0.872 (0.901, 0.867).
Reported afterwards, never chosen on: camvid:test 0.937 (Seq05VD 0.940, 0001TP 0.918), int8. Before
weather it was 10 epochs from the weights of ``road_256x512_lines``: 0.969 and 0.931, with
obstacles 0.932 and 0.899; camvid:test 0.934 (Seq05VD 0.937, 0001TP 0.918). Its history:
docs/figures/road_256x512_near_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 7),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_calm/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.015, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=13, init='runs/road_256x512',
    augmentation=Augmentation(
        scale=(0.85, 1.6), aspect=1.25, rotation_deg=3.0, colour=0.6, blur=0.08, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.12, motion=0.05, coarse=0.08,
        jpeg=0.1, perspective=0.1, tone=0.25, paste=0.15, hood=0.2, markings=0.2,
        obstacles=0.25, lamplight=0.08, shade=0.1, wet=0.15, snow=0.05, rain=0.08),
)
