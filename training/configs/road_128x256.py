"""
The shipped road model for the slowest machines: a quarter of the pixels and of the time.

The weights of ``road_256x512_near``, after its last epoch, trained on at the smaller size with
calmer views, the same obstacles and the same weather.

    python -m training.rebuild road_128x256 --data FOLDER --output FOLDER

The run that was used, with the training code of commit a9f972f: 11 minutes on 2 cores of an AMD
EPYC (Zen 4); 40 to 49 views a second. Best epoch 6 of 9, by the mean over both validation sets:
road IoU 0.954 on camvid:val, 0.909 on idd_lite:val. What ships is the mean of the weights after
its last epoch, 0.7, and those of ``road_128x256_lines``, 0.3: 0.954 and 0.909; in one frame of
four with obstacles drawn 0.875 and 0.846 (before: 0.807, 0.711), with an own vehicle 0.846 and
0.819 (0.838, 0.822), with wet roads 0.910 and 0.860 (0.914, 0.863), with snow 0.901 and 0.874
(0.905, 0.870), with rain 0.937 and 0.899 (0.938, 0.898), with shade 0.925 and 0.883 (0.923,
0.881). Reported afterwards, never chosen on: camvid:test 0.917 (Seq05VD 0.921, 0001TP 0.899),
int8; before 0.917 (0.921, 0.892). Before obstacles it was the same 9 epochs without them from the
weights of ``road_256x512``: 0.953 and 0.911. Its history:
docs/figures/road_128x256_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((128, 256), 9),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_calm/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.02, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=21, init='runs/road_256x512_near',
    augmentation=Augmentation(
        scale=(0.9, 1.4), aspect=1.2, rotation_deg=3.0, colour=0.6, blur=0.05, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.1, motion=0.05, coarse=0.05,
        jpeg=0.08, perspective=0.1, tone=0.25, paste=0.15, hood=0.2, markings=0.2,
        obstacles=0.25, lamplight=0.08, shade=0.1, wet=0.15, snow=0.05, rain=0.08),
)
