"""
What the shipped road model goes on from: other paint, and own vehicles.

The weights of ``road_256x512_calm``, trained on with lines, crossings and neighbouring lanes drawn
on its roads (``markings``), and with the own vehicle in twice as many views, as dashboards and
mirroring bonnets show it (``hood``). Pictures of cameras that are in no data set here had shown
what was missing: bonnets were taken for road, and lanes beyond a yellow line were not.

    python -m training.train --config training/configs/road_256x512_paint.py --data FOLDER \
        --run runs/road_256x512_paint

once ``runs/road_256x512_calm`` is there, and ``runs/road_256x512_drives`` with ``pseudo_labels``
in it; ``python -m training.rebuild road_256x512`` makes all.

The run that was used, with the training code of commit b0f7128, which drew lines along the edges
of roads, too: 67 minutes on 2 cores of an AMD EPYC (Zen 4), at times shared with other work; 9 to
17 views a second. Best epoch 5 of 18 by the mean over both validation sets, road IoU 0.969 on
camvid:val, 0.929 on idd_lite:val; the others are alike. The mean of the weights after its last
epoch, 0.7, and of those it started from, 0.3, shipped until the next: 0.969 and 0.929. Reported
afterwards, never chosen on: camvid:test 0.936 (Seq05VD 0.939, 0001TP 0.920), int8; 0.935 (0.938,
0.921) after the last epoch, which was seen before the mean was taken. Its history:
docs/figures/road_256x512_paint_history.csv.
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
    ema_decay=0.998, precision='mixed_bfloat16', seed=8, init='runs/road_256x512_calm',
    augmentation=Augmentation(
        scale=(0.85, 1.6), aspect=1.25, rotation_deg=3.0, colour=0.6, blur=0.08, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.12, motion=0.05, coarse=0.08,
        jpeg=0.1, perspective=0.1, tone=0.25, paste=0.15, hood=0.25, markings=0.3),
)
