"""
The shipped road model for the slowest machines: a quarter of the pixels and of the time.

The weights of ``road_256x512_unlabelled``, trained on at the smaller size.

    python -m training.rebuild road_128x256 --data FOLDER --output FOLDER

The run that was shipped, with the training code of commit 4947f05: 10 minutes on 2 cores of an
AMD EPYC (Zen 4), shared with quantization and scoring; 31 to 54 views a second. Best epoch 8 of 8,
by the mean over both validation sets: road IoU 0.948 on camvid:val, 0.906 on idd_lite:val.
Reported afterwards, never chosen on: camvid:test 0.913 (Seq05VD 0.922, 0001TP 0.871), int8. Its
history: docs/figures/road_128x256_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((128, 256), 8),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_drives/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.02, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.99, precision='mixed_bfloat16', seed=2, init='runs/road_256x512_unlabelled',
    augmentation=Augmentation(
        scale=(0.8, 1.6), aspect=1.35, rotation_deg=4.0, colour=0.8, blur=0.1, noise=0.2,
        cutout=0.15, shadow=0.3, fog=0.06, glare=0.06, night=0.06, motion=0.06, coarse=0.06,
        jpeg=0.1, perspective=0.15, tone=0.3, paste=0.15, hood=0.1),
)
