"""
What the shipped road model goes on from: lines amid roads alone.

The weights of ``road_256x512_paint``, trained on with lines drawn amid roads alone: those drawn
along their edges had taught that a road may go on behind a kerb's own lines. The unlabelled frames
are those of before, labelled anew by ``road_256x512_calm``.

    python -m training.train --config training/configs/road_256x512_lines.py --data FOLDER \
        --run runs/road_256x512_lines

once ``runs/road_256x512_paint`` is there, and ``runs/road_256x512_calm`` with ``pseudo_labels`` in
it; ``python -m training.rebuild road_256x512`` makes all.

The run that was used, with the training code of commit 4668774: 48 minutes on 2 cores of an AMD
EPYC (Zen 4), of which the first epoch took 18 beside other work; 15 to 17 views a second
otherwise. It began with the last weights of ``road_256x512_paint`` and booster heads trained for
one epoch: those of that run were lost. Best epoch 8 of 8 by the mean over both validation sets,
road IoU 0.968 on camvid:val, 0.931 on idd_lite:val. The mean of the weights after the last epoch,
0.7, and those of ``road_256x512_calm``, 0.3, shipped until the next: 0.969 and 0.931; in one frame
of four with paint drawn amid the road 0.967 and 0.935, with an own vehicle 0.896 and 0.871.
Reported afterwards, never chosen on: camvid:test 0.938 (Seq05VD 0.941, 0001TP 0.924), int8. Its
history: docs/figures/road_256x512_lines_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 8),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_calm/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.015, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=9, init='runs/road_256x512_paint',
    augmentation=Augmentation(
        scale=(0.85, 1.6), aspect=1.25, rotation_deg=3.0, colour=0.6, blur=0.08, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.12, motion=0.05, coarse=0.08,
        jpeg=0.1, perspective=0.1, tone=0.25, paste=0.15, hood=0.2, markings=0.2),
)
