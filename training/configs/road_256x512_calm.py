"""
What the shipped road models go on from: calmer views.

The weights of ``road_256x512_unlabelled``, trained on with views nearer to what cameras show: less
zoom, tilt and change of colour. All that was wild before had taught what it could.

    python -m training.train --config training/configs/road_256x512_calm.py --data FOLDER \
        --run runs/road_256x512_calm

once ``runs/road_256x512_unlabelled`` is there, and ``runs/road_256x512_drives`` with
``pseudo_labels`` in it; ``python -m training.rebuild road_256x512`` makes all.

The run that was used, with the training code of commit d9d91bf, but for its first 9 epochs: they
took the label of each cell of four pixels from its lower right pixel (commit d54d9d9), which
taught outlines half a pixel aside. The epoch after that gained 0.001 on both validation sets. 88
minutes on 2 cores of an AMD EPYC (Zen 4) shared with other work; 8 to 17 views a second. Best
epoch 18 of 18, by the mean over both validation sets: road IoU 0.969 on camvid:val, 0.929 on
idd_lite:val. Reported afterwards, never chosen on: camvid:test 0.939 (Seq05VD 0.943, 0001TP
0.920), int8. Its history: docs/figures/road_256x512_calm_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 18),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_drives/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.02, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=7, init='runs/road_256x512_unlabelled',
    augmentation=Augmentation(
        scale=(0.85, 1.6), aspect=1.25, rotation_deg=3.0, colour=0.6, blur=0.08, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.12, motion=0.05, coarse=0.08,
        jpeg=0.1, perspective=0.1, tone=0.25, paste=0.15, hood=0.12),
)
