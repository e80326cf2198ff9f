"""
What the shipped road models go on from: with frames that nobody labelled, and the own vehicle.

The weights of ``road_256x512_drives``, trained on in the same way, with two things new. That run
labels the 404 unlabelled frames of IDD-lite and every second frame of a clip from a highway
(``training.pseudo_labels``); and views show a bonnet, a bumper or a deck at their lower edge
(``hood``): the network took what carries the camera for road (road IoU on validation frames with a
drawn one 0.58 and 0.57, and 0.92 and 0.88 after this run).

    python -m training.train --config training/configs/road_256x512_unlabelled.py --data FOLDER \
        --run runs/road_256x512_unlabelled

once ``runs/road_256x512_drives`` is there, with ``pseudo_labels`` in it; ``python -m
training.rebuild road_256x512`` makes all.

The run that was used, with the training code of commit 4947f05: 44 minutes on 2 cores of an AMD
EPYC (Zen 4); 13 to 16 views a second. Best epoch 12 of 12, by the mean over both validation sets:
road IoU 0.966 on camvid:val, 0.924 on idd_lite:val. Reported afterwards, never chosen on:
camvid:test 0.935 (Seq05VD 0.940, 0001TP 0.911), int8. Its history:
docs/figures/road_256x512_unlabelled_history.csv.
"""

from training.augment import Augmentation
from training.config import Config, Phase
from training.model import PRESETS

CONFIG = Config(
    architecture=PRESETS['road'],
    phases=(Phase((256, 512), 12),),
    train=(('camvid:train', 0.42), ('idd_lite:train', 0.38),
           ('ids:runs/road_256x512_drives/pseudo_labels', 0.15), ('synthetic:300:1', 0.05)),
    validate=('camvid:val', 'idd_lite:val'),
    images_per_epoch=3200, learning_rate=0.02, warmup_steps=100, sequence_balance=0.7,
    booster_weight=0.2, weight_decay=2e-4, ohem_threshold=0.9, jaccard_weight=1.0,
    ema_decay=0.998, precision='mixed_bfloat16', seed=5, init='runs/road_256x512_drives',
    augmentation=Augmentation(
        scale=(0.7, 2.0), aspect=1.5, rotation_deg=5.0, colour=0.8, blur=0.12, noise=0.2,
        cutout=0.2, shadow=0.3, fog=0.06, glare=0.06, night=0.15, motion=0.06, coarse=0.1,
        jpeg=0.12, perspective=0.2, tone=0.35, paste=0.25, hood=0.12),
)
