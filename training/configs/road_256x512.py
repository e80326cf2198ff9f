"""
The shipped road model.

The weights of ``road_256x512_lines``, trained on with weather: roads that are wet and mirror what
stands behind them, snow and dappled shade on them, rain, and nights that lamps light
(``training/weather.py``, ``lamplight``). On a wet road the model before had left out what mirrored
the sky.

    python -m training.rebuild road_256x512 --data FOLDER --output FOLDER

The run that was used, with the training code of commit 84bb1f7: 39 minutes on 2 cores of an AMD
EPYC (Zen 4), in part beside other work; 11 to 15 views a second. Best epoch 8 of 9 by the mean
over both validation sets, road IoU 0.968 on camvid:val, 0.931 on idd_lite:val. What ships is the
mean of the weights after the last epoch, 0.7, and those of ``road_256x512_calm``, 0.3 (the share
of before): 0.968 and 0.930; in one frame of four with wet roads drawn 0.909 and 0.892 (before:
0.712, 0.786), with snow 0.938 and 0.893 (0.926, 0.888), with rain 0.956 and 0.906 (0.946, 0.865),
with shade 0.953 and 0.915 (0.946, 0.908), with lamplight 0.959 and 0.912 (0.958, 0.906).
Reported afterwards, never chosen on: camvid:test 0.939 (Seq05VD 0.944, 0001TP 0.919), int8. Its
history: docs/figures/road_256x512_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 9),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_calm/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.015, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=11, init='runs/road_256x512_lines',
    augmentation=Augmentation(
        scale=(0.85, 1.6), aspect=1.25, rotation_deg=3.0, colour=0.6, blur=0.08, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.12, motion=0.05, coarse=0.08,
        jpeg=0.1, perspective=0.1, tone=0.25, paste=0.15, hood=0.2, markings=0.2,
        lamplight=0.08, shade=0.1, wet=0.15, snow=0.05, rain=0.08),
)
