"""Which ids the public data sets use, and what their classes become in ours."""

from __future__ import annotations

#: CamVid, 480x360 version of the SegNet tutorial (Brostow et al. 2009).
CAMVID_IDS = dict(enumerate((
    'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian',
    'bicyclist', 'void')))

CAMVID_TO = {
    'road': {
        'sky': 'background', 'building': 'background', 'pole': 'background', 'road': 'road',
        'pavement': 'ground', 'tree': 'background', 'sign': 'background', 'fence': 'background',
        'car': 'movable', 'pedestrian': 'movable', 'bicyclist': 'movable'},
    # Where CamVid's eleven classes merge what Cityscapes tells apart, nothing is claimed: its
    # signs include traffic lights, its bicyclists their bicycles. Its cars are mostly cars.
    'cityscapes19': {
        'sky': 'sky', 'building': 'building', 'pole': 'pole', 'road': 'road',
        'pavement': 'sidewalk', 'tree': 'vegetation', 'sign': 'void', 'fence': 'fence',
        'car': 'car', 'pedestrian': 'person', 'bicyclist': 'void'},
}

#: CamVid as it was first published (label_colors.txt): class, colour, class in ``camvid11``
#: (grouped as the SegNet tutorial does), class in ``cityscapes19``.
_CAMVID32 = (
    ('Animal', (64, 128, 64), 'pedestrian', 'void'),
    ('Archway', (192, 0, 128), 'building', 'void'),
    ('Bicyclist', (0, 128, 192), 'bicyclist', 'void'),
    ('Bridge', (0, 128, 64), 'building', 'void'),
    ('Building', (128, 0, 0), 'building', 'building'),
    ('Car', (64, 0, 128), 'car', 'car'),
    ('CartLuggagePram', (64, 0, 192), 'pedestrian', 'void'),
    ('Child', (192, 128, 64), 'pedestrian', 'person'),
    ('Column_Pole', (192, 192, 128), 'pole', 'pole'),
    ('Fence', (64, 64, 128), 'fence', 'fence'),
    ('LaneMkgsDriv', (128, 0, 192), 'road', 'road'),
    ('LaneMkgsNonDriv', (192, 0, 64), 'road', 'void'),
    ('Misc_Text', (128, 128, 64), 'sign', 'void'),
    ('MotorcycleScooter', (192, 0, 192), 'bicyclist', 'void'),
    ('OtherMoving', (128, 64, 64), 'car', 'void'),
    ('ParkingBlock', (64, 192, 128), 'pavement', 'void'),
    ('Pedestrian', (64, 64, 0), 'pedestrian', 'person'),
    ('Road', (128, 64, 128), 'road', 'road'),
    ('RoadShoulder', (128, 128, 192), 'pavement', 'void'),
    ('SUVPickupTruck', (64, 128, 192), 'car', 'car'),
    ('Sidewalk', (0, 0, 192), 'pavement', 'sidewalk'),
    ('SignSymbol', (192, 128, 128), 'sign', 'void'),
    ('Sky', (128, 128, 128), 'sky', 'sky'),
    ('TrafficCone', (0, 0, 64), 'pole', 'void'),
    ('TrafficLight', (0, 64, 64), 'sign', 'traffic light'),
    ('Train', (192, 64, 128), 'car', 'train'),
    ('Tree', (128, 128, 0), 'tree', 'vegetation'),
    ('Truck_Bus', (192, 128, 192), 'car', 'void'),
    ('Tunnel', (64, 0, 64), 'building', 'void'),
    ('VegetationMisc', (192, 192, 0), 'tree', 'void'),
    ('Void', (0, 0, 0), 'void', 'void'),
    ('Wall', (64, 192, 0), 'building', 'wall'),
)

CAMVID32_TO = {
    'road': {row[0]: CAMVID_TO['road'].get(row[2], 'void') for row in _CAMVID32},
    'camvid11': {row[0]: row[2] for row in _CAMVID32},
    'cityscapes19': {row[0]: row[3] for row in _CAMVID32},
}

#: IDD-lite (Varma et al. 2019).
IDD_LITE_IDS = {
    **dict(enumerate(('drivable', 'non-drivable', 'living things', 'vehicles',
                      'roadside objects', 'far objects', 'sky'))), 255: 'void'}

IDD_LITE_TO = {
    'road': {
        'drivable': 'road', 'non-drivable': 'ground', 'living things': 'movable',
        'vehicles': 'movable', 'roadside objects': 'background', 'far objects': 'background',
        'sky': 'background'},
    'camvid11': {
        'drivable': 'road', 'non-drivable': 'void', 'living things': 'void', 'vehicles': 'void',
        'roadside objects': 'void', 'far objects': 'void', 'sky': 'sky'},
    'cityscapes19': {
        'drivable': 'road', 'non-drivable': 'void', 'living things': 'void', 'vehicles': 'void',
        'roadside objects': 'void', 'far objects': 'void', 'sky': 'sky'},
}

#: The rendered drive; its ground is pavement and grass in one.
SYNTHETIC_TO = {
    'camvid11': {'background': 'void', 'ground': 'void', 'movable': 'void'},
    'cityscapes19': {'background': 'void', 'ground': 'void', 'movable': 'void'},
}

#: Cityscapes (Cordts et al. 2016): id, class, colour, class in ``cityscapes19`` where the 19
#: trainIds have one, class in ``road``, class in ``camvid11`` (grouped as the SegNet tutorial
#: groups CamVid's 32 classes). Parking is drivable and yet no road: it counts nowhere.
_CITYSCAPES = (
    (0, 'unlabeled', (0, 0, 0), 'void', 'void', 'void'),
    (1, 'ego vehicle', (0, 0, 0), 'void', 'void', 'void'),
    (2, 'rectification border', (0, 0, 0), 'void', 'void', 'void'),
    (3, 'out of roi', (0, 0, 0), 'void', 'void', 'void'),
    (4, 'static', (0, 0, 0), 'void', 'background', 'void'),
    (5, 'dynamic', (111, 74, 0), 'void', 'movable', 'void'),
    (6, 'ground', (81, 0, 81), 'void', 'void', 'void'),
    (7, 'road', (128, 64, 128), 'road', 'road', 'road'),
    (8, 'sidewalk', (244, 35, 232), 'sidewalk', 'ground', 'pavement'),
    (9, 'parking', (250, 170, 160), 'void', 'void', 'void'),
    (10, 'rail track', (230, 150, 140), 'void', 'ground', 'void'),
    (11, 'building', (70, 70, 70), 'building', 'background', 'building'),
    (12, 'wall', (102, 102, 156), 'wall', 'background', 'building'),
    (13, 'fence', (190, 153, 153), 'fence', 'background', 'fence'),
    (14, 'guard rail', (180, 165, 180), 'void', 'background', 'fence'),
    (15, 'bridge', (150, 100, 100), 'void', 'background', 'building'),
    (16, 'tunnel', (150, 120, 90), 'void', 'background', 'building'),
    (17, 'pole', (153, 153, 153), 'pole', 'background', 'pole'),
    (18, 'polegroup', (153, 153, 153), 'void', 'background', 'pole'),
    (19, 'traffic light', (250, 170, 30), 'traffic light', 'background', 'sign'),
    (20, 'traffic sign', (220, 220, 0), 'traffic sign', 'background', 'sign'),
    (21, 'vegetation', (107, 142, 35), 'vegetation', 'background', 'tree'),
    (22, 'terrain', (152, 251, 152), 'terrain', 'ground', 'tree'),
    (23, 'sky', (70, 130, 180), 'sky', 'background', 'sky'),
    (24, 'person', (220, 20, 60), 'person', 'movable', 'pedestrian'),
    (25, 'rider', (255, 0, 0), 'rider', 'movable', 'bicyclist'),
    (26, 'car', (0, 0, 142), 'car', 'movable', 'car'),
    (27, 'truck', (0, 0, 70), 'truck', 'movable', 'car'),
    (28, 'bus', (0, 60, 100), 'bus', 'movable', 'car'),
    (29, 'caravan', (0, 0, 90), 'void', 'movable', 'car'),
    (30, 'trailer', (0, 0, 110), 'void', 'movable', 'car'),
    (31, 'train', (0, 80, 100), 'train', 'movable', 'car'),
    (32, 'motorcycle', (0, 0, 230), 'motorcycle', 'movable', 'bicyclist'),
    (33, 'bicycle', (119, 11, 32), 'bicycle', 'movable', 'bicyclist'),
)

#: A number plate has the id -1 and is in no mask of the publisher's; 255 is what others ignore.
CITYSCAPES_IDS = {**{row[0]: row[1] for row in _CITYSCAPES}, 255: 'void'}

CITYSCAPES_TO = {
    'cityscapes19': {**{row[1]: row[3] for row in _CITYSCAPES}, 'license plate': 'void'},
    'road': {**{row[1]: row[4] for row in _CITYSCAPES}, 'license plate': 'movable'},
    'camvid11': {**{row[1]: row[5] for row in _CITYSCAPES}, 'license plate': 'car'},
}

#: Files of trainIds (``_labelTrainIds.png``).
CITYSCAPES_TRAIN_IDS = {
    **dict(enumerate(row[1] for row in _CITYSCAPES if row[3] != 'void')), 255: 'unlabeled'}

#: India Driving Dataset, 20k frames (Varma et al. 2019): id, class, level3Id, csTrainId, class
#: in ``road``, class in ``camvid11``. In ``cityscapes19`` it is the csTrainId's class.
_IDD = (
    (0, 'road', 0, 0, 'road', 'road'),
    (1, 'parking', 1, 255, 'void', 'void'),
    (2, 'drivable fallback', 1, 255, 'void', 'void'),
    (3, 'sidewalk', 2, 1, 'ground', 'pavement'),
    (4, 'rail track', 3, 255, 'ground', 'void'),
    (5, 'non-drivable fallback', 3, 9, 'ground', 'void'),
    (6, 'person', 4, 11, 'movable', 'pedestrian'),
    (7, 'animal', 4, 255, 'movable', 'void'),
    (8, 'rider', 5, 12, 'movable', 'bicyclist'),
    (9, 'motorcycle', 6, 17, 'movable', 'bicyclist'),
    (10, 'bicycle', 7, 18, 'movable', 'bicyclist'),
    (11, 'autorickshaw', 8, 255, 'movable', 'car'),
    (12, 'car', 9, 13, 'movable', 'car'),
    (13, 'truck', 10, 14, 'movable', 'car'),
    (14, 'bus', 11, 15, 'movable', 'car'),
    (15, 'caravan', 12, 255, 'movable', 'car'),
    (16, 'trailer', 12, 255, 'movable', 'car'),
    (17, 'train', 12, 16, 'movable', 'car'),
    (18, 'vehicle fallback', 12, 255, 'movable', 'car'),
    (19, 'curb', 13, 255, 'ground', 'void'),
    (20, 'wall', 14, 3, 'background', 'building'),
    (21, 'fence', 15, 4, 'background', 'fence'),
    (22, 'guard rail', 16, 255, 'background', 'fence'),
    (23, 'billboard', 17, 255, 'background', 'void'),
    (24, 'traffic sign', 18, 7, 'background', 'sign'),
    (25, 'traffic light', 19, 6, 'background', 'sign'),
    (26, 'pole', 20, 5, 'background', 'pole'),
    (27, 'polegroup', 20, 255, 'background', 'pole'),
    (28, 'obs-str-bar-fallback', 21, 255, 'background', 'void'),
    (29, 'building', 22, 2, 'background', 'building'),
    (30, 'bridge', 23, 255, 'background', 'building'),
    (31, 'tunnel', 23, 255, 'background', 'building'),
    (32, 'vegetation', 24, 8, 'background', 'tree'),
    (33, 'sky', 25, 10, 'background', 'sky'),
    (34, 'fallback background', 25, 255, 'background', 'void'),
    (35, 'unlabeled', 255, 255, 'void', 'void'),
    (36, 'ego vehicle', 255, 255, 'void', 'void'),
    (37, 'rectification border', 255, 255, 'void', 'void'),
    (38, 'out of roi', 255, 255, 'void', 'void'),
    (39, 'license plate', 255, 255, 'movable', 'car'),
)

IDD_IDS = {**{row[0]: row[1] for row in _IDD}, 255: 'unlabeled'}

_TRAIN_NAMES = {**CITYSCAPES_TRAIN_IDS, 255: 'void'}

IDD_TO = {
    'cityscapes19': {row[1]: _TRAIN_NAMES[row[3]] for row in _IDD},
    'road': {row[1]: row[4] for row in _IDD},
    'camvid11': {row[1]: row[5] for row in _IDD},
}

#: Files of level3Ids merge classes; the merged id goes by the one that most of its pixels are.
_IDD_LEVEL3_MAIN = {1: 'drivable fallback', 3: 'non-drivable fallback', 4: 'person',
                    12: 'vehicle fallback', 20: 'pole', 23: 'bridge', 25: 'sky',
                    255: 'unlabeled'}

IDD_LEVEL3_IDS = {**{row[2]: row[1] for row in _IDD}, **_IDD_LEVEL3_MAIN}

#: Colours of masks that are known by name (``palette=NAME``): RGB to class.
PALETTES = {
    # As painted for the original bisenetv2-tf2; ours calls them by the names of the road model.
    'bisenetv2_tf2': {(0, 0, 0): 'background', (32, 224, 224): 'road'},
    # Poles and pole groups share a colour, and so do cars and number plates; what is black is
    # unlabelled in one way or another.
    'cityscapes': {row[2]: row[1] for row in reversed(_CITYSCAPES)},
    'camvid32': {row[1]: row[0] for row in _CAMVID32},
}

#: What the classes of a named palette become.
PALETTES_TO = {'cityscapes': CITYSCAPES_TO, 'camvid32': CAMVID32_TO}
