"""
The shipped road model.

The weights of ``road_256x512_unlabelled``, trained on with views nearer to what cameras show: less
zoom, tilt and change of colour, at a lower learning rate. All that was wild before had taught what
it could.

    python -m training.rebuild road_256x512 --data FOLDER --output FOLDER

The run that was shipped, with the training code of commit 4947f05: 18 minutes on 2 cores of an AMD
EPYC (Zen 4); 14 to 16 views a second. Best epoch 5 of 5, by the mean over both validation sets:
road IoU 0.967 on camvid:val, 0.926 on idd_lite:val. Reported afterwards, never chosen on:
camvid:test 0.938 (Seq05VD 0.941, 0001TP 0.921), int8. Its history:
docs/figures/road_256x512_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 5),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_drives/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.01, warmup_steps=50, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=6, init='runs/road_256x512_unlabelled',
    augmentation=Augmentation(
        scale=(0.85, 1.6), aspect=1.25, rotation_deg=3.0, colour=0.6, blur=0.08, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.12, motion=0.05, coarse=0.08,
        jpeg=0.1, perspective=0.1, tone=0.25, paste=0.15, hood=0.12),
)
