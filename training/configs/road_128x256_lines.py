"""
What the small shipped model is a mean with: no weather.

The weights of ``road_256x512_lines``, after its last epoch, trained on at the smaller size with
views as calm, with paint on its roads and own vehicles as there.

    python -m training.train --config training/configs/road_128x256_lines.py --data FOLDER \
        --run runs/road_128x256_lines

once ``runs/road_256x512_lines`` is there, and ``runs/road_256x512_calm`` with ``pseudo_labels`` in
it; ``python -m training.rebuild road_128x256`` makes all.

The run that was used, with the training code of commit 4668774: 13 minutes on 2 cores of an AMD
EPYC (Zen 4), at first beside other work; 21 to 51 views a second. Best epoch 8 of 9, by the mean
over both validation sets: road IoU 0.955 on camvid:val, 0.912 on idd_lite:val. The mean of the
weights after its last epoch, 0.7, and of calm ones of the same size, 0.3, shipped until the next:
0.955 and 0.911; reported afterwards, never chosen on, camvid:test 0.918 (Seq05VD 0.923, 0001TP
0.894), int8. Its history: docs/figures/road_128x256_lines_history.csv.
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
    ema_decay=0.998, precision='mixed_bfloat16', seed=4, init='runs/road_256x512_lines',
    augmentation=Augmentation(
        scale=(0.9, 1.4), aspect=1.2, rotation_deg=3.0, colour=0.6, blur=0.05, noise=0.15,
        cutout=0.1, shadow=0.25, fog=0.05, glare=0.05, night=0.1, motion=0.05, coarse=0.05,
        jpeg=0.08, perspective=0.1, tone=0.25, paste=0.15, hood=0.2, markings=0.2),
)
