"""
CamVid's eleven classes at 352x480, with boosters and class weights.

    python -m training.train --config training/configs/camvid11.py --data FOLDER

Not trained yet: no score is known. The anchor for this resolution is FC-DenseNet103's mean IoU
of 66.9 on camvid:test (arXiv 1611.09326; from memory of the paper). `mark='mean'` chooses the
epoch by mean IoU on camvid:val; score the test split once, with `python -m training.evaluate`.
"""

import dataclasses

from training.config import Config, Phase
from training.datasets import TAXONOMIES
from training.model import PRESETS

CLASSES = TAXONOMIES['camvid11'].classes

CONFIG = Config(
    architecture=dataclasses.replace(PRESETS['many_classes'], num_classes=len(CLASSES)),
    phases=(Phase((192, 256), 60), Phase((352, 480), 40)),
    train=(('camvid:train', 1.0),),
    validate=('camvid:val',),
    taxonomy='camvid11', classes=CLASSES, merge=(), mark='mean',
    class_weights='inverse_log',
    images_per_epoch=734,  # every frame of the split twice, each time as another view
    batch_size=16,
    ema_decay=0.998,
    precision='mixed_bfloat16',
)
