"""
CamVid's eleven classes at 352x480, fine-tuned from the road network's weights.

    python -m training.train --config training/configs/camvid11.py --data FOLDER

Started from the repository's root. The heads do not fit eleven classes and start fresh.

The run that was made, with the training code of commit 5eadeda, from the weights that ship
(``road_256x512``): 70 minutes on 2 cores of an AMD EPYC (Zen 4), in part beside other work; 7 to
32 views a second. Best epoch 49 of 60: mean IoU 0.641 on camvid:val. Reported afterwards, never
chosen on: mean IoU 0.571 on camvid:test, road 0.929, float. The anchor for this resolution is
FC-DenseNet103's 0.669 (arXiv 1611.09326; from memory of the paper): missed by 0.098. With 24
epochs at 352x480, from the weights before weather: 0.606 and 0.556; without other frames' things
and tone, 12 and 8 epochs: 0.597 and 0.521. Its history: docs/figures/camvid11_history.csv.
"""

import dataclasses

from training.augment import Augmentation
from training.config import Config, Phase
from training.datasets import TAXONOMIES
from training.model import PRESETS

CLASSES = TAXONOMIES['camvid11'].classes

CONFIG = Config(
    architecture=dataclasses.replace(
        PRESETS['road'], num_classes=len(CLASSES), booster_classes=0),
    phases=(Phase((192, 256), 12), Phase((352, 480), 48)),
    train=(('camvid:train', 1.0),),
    validate=('camvid:val',),
    taxonomy='camvid11', classes=CLASSES, merge=(), mark='mean',
    class_weights='inverse_log', jaccard_weight=1.0,
    images_per_epoch=734,  # every frame of the split twice, each time as another view
    batch_size=8, learning_rate=0.02, warmup_steps=100,
    ema_decay=0.99,
    augmentation=Augmentation(paste=0.4, tone=0.2),
    precision='mixed_bfloat16', init='training/weights/road_256x512.keras',
)
