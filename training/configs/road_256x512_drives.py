"""
What the shipped road models go on from: with the loss that has the score in it, drives in balance.

The weights of ``road_256x512_jaccard``, trained on in the same way, but for drives: within a data
set long ones give way to short ones, so that the dusk drive, which the network knew least of all
that it had been shown (road IoU 0.93 on its training frames, 0.97 on the others'), is seen more
often.

    python -m training.train --config training/configs/road_256x512_drives.py --data FOLDER \
        --run runs/road_256x512_drives

once ``runs/road_256x512_jaccard`` is there; ``python -m training.rebuild road_256x512`` trains
all.

The run that was used, and shipped for a while, with the training code of commit cd82158: 84
minutes on 2 cores of an AMD EPYC (Zen 4), shared with tests; 8 to 17 views a second. Best epoch 18
of 18, by the mean over both validation sets: road IoU 0.966 on camvid:val, 0.923 on idd_lite:val.
Reported afterwards, never chosen on: camvid:test 0.937 (Seq05VD 0.942, 0001TP 0.910), int8: what
road_256x512_jaccard had. Its history: docs/figures/road_256x512_drives_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 18),),
    train=(('camvid:train', 0.5), ('idd_lite:train', 0.45), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.02, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=4, init='runs/road_256x512_jaccard',
    augmentation=Augmentation(
        scale=(0.7, 2.0), aspect=1.5, rotation_deg=5.0, colour=0.8, blur=0.12, noise=0.2,
        cutout=0.2, shadow=0.3, fog=0.06, glare=0.06, night=0.15, motion=0.06, coarse=0.1,
        jpeg=0.12, perspective=0.2, tone=0.35, paste=0.25),
)
