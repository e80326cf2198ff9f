"""
What the shipped road models go on from: the views, with a loss that has the score itself in it.

The weights of ``road_256x512_views``, trained on with the soft Jaccard loss and nearly all pixels
in the cross-entropy, and averaged over the run.

    python -m training.train --config training/configs/road_256x512_jaccard.py --data FOLDER \
        --run runs/road_256x512_jaccard

once ``runs/road_256x512_views`` is there; ``python -m training.rebuild road_256x512`` trains all.

The run that was used, and shipped for a while, with the training code of commit a532edd: 92
minutes on 2 cores of an AMD EPYC (Zen 4), shared with other trainings; 3 to 13 views a second.
Best epoch 13 of 14, by the mean over both validation sets: road IoU 0.966 on camvid:val, 0.921 on
idd_lite:val. Reported afterwards, never chosen on: camvid:test 0.937 (Seq05VD 0.943, 0001TP
0.909), int8. Its history: docs/figures/road_256x512_jaccard_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 14),),
    train=(('camvid:train', 0.5), ('idd_lite:train', 0.45), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.02, warmup_steps=100,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=3, init='runs/road_256x512_views',
    augmentation=Augmentation(
        scale=(0.7, 2.2), aspect=1.5, rotation_deg=5.0, colour=0.8, blur=0.12, noise=0.2,
        cutout=0.2, shadow=0.3, fog=0.06, glare=0.06, night=0.12, motion=0.06, coarse=0.1,
        jpeg=0.12, perspective=0.2, tone=0.35, paste=0.25),
)
