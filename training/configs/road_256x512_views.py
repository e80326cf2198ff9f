"""
What the shipped road models go on from: the start, seen in other light and by other cameras.

The weights of ``road_256x512_start``, trained on at full size alone, on views in other light and
weather, from other cameras and mounting heights.

    python -m training.train --config training/configs/road_256x512_views.py --data FOLDER \
        --run runs/road_256x512_views

once ``runs/road_256x512_start`` is there; ``python -m training.rebuild road_256x512`` trains both.

The run that was used, and shipped for a while, with the training code of commit 3dfd171 (views are
drawn in another order since): 101 minutes on 2 cores of an AMD EPYC (Zen 4), most of them shared
with tests and measurements; 6 to 16 views a second. Best epoch 12 of 16, by the mean over both
validation sets: road IoU 0.964 on camvid:val, 0.916 on idd_lite:val. Reported afterwards, never
chosen on: camvid:test 0.927 (Seq05VD 0.936, 0001TP 0.880), int8. Its history:
docs/figures/road_256x512_views_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 16),),
    train=(('camvid:train', 0.5), ('idd_lite:train', 0.45), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.03, warmup_steps=100,
    precision='mixed_bfloat16', seed=1, init='runs/road_256x512_start',
    augmentation=Augmentation(
        scale=(0.7, 2.2), aspect=1.5, rotation_deg=5.0, colour=0.8, blur=0.15, noise=0.25,
        cutout=0.2, shadow=0.3, fog=0.08, glare=0.08, night=0.08, motion=0.08, coarse=0.12,
        jpeg=0.15, perspective=0.2, tone=0.35, paste=0.25),
)
