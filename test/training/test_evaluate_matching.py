"""Which classes of models and data are the same, and when nobody can tell."""

from __future__ import annotations

import pytest

pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from training.class_matching import match, MatchingError, parse_merges

ROAD = ('background', 'road')
FINER = ('background', 'road', 'ground', 'movable')
STREET = ('sky', 'road', 'side_walk', 'car')


def test_equal_classes_match_as_they_are() -> None:
    found = match(FINER, [FINER])
    assert found.names == FINER
    assert found.from_data[:4].tolist() == found.from_models[0][:4].tolist() == [0, 1, 2, 3]
    assert found.from_data[255] == found.from_models[0][255] == 255


def test_order_and_spelling_do_not_matter() -> None:
    found = match(('Side-Walk', 'car', 'road', 'sky'), [STREET])
    assert found.names == ('side walk', 'car', 'road', 'sky')
    assert found.from_models[0][:4].tolist() == [3, 2, 0, 1]


def test_road_model_merges_the_finer_taxonomy() -> None:
    found = match(FINER, [ROAD])
    assert found.names == ROAD
    assert found.from_data[:5].tolist() == [0, 1, 0, 0, 255]
    assert found.from_models[0][:3].tolist() == [0, 1, 255]


def test_model_without_background_is_merged_where_the_data_has_one() -> None:
    found = match(FINER, [STREET])
    assert found.names == ROAD
    assert found.from_models[0][:4].tolist() == [0, 1, 0, 0]


def test_data_without_background_is_merged_where_the_model_has_one() -> None:
    found = match(STREET, [ROAD])
    assert found.names == ('background', 'road')
    assert found.from_data[:4].tolist() == [0, 1, 0, 0]


def test_several_models_meet_in_what_all_have() -> None:
    found = match(FINER, [FINER, ROAD])
    assert found.names == ROAD
    assert found.from_models[0][:4].tolist() == [0, 1, 0, 0]


def test_merges_rename_both_sides() -> None:
    found = match(FINER, [STREET], parse_merges(['ground=side_walk', 'movable=car']))
    assert found.names == FINER
    assert found.from_models[0][:4].tolist() == [0, 1, 2, 3]


def test_left_over_classes_without_background_are_refused() -> None:
    with pytest.raises(MatchingError, match=r'those without a namesake cannot be told \(data set: '
                                            r'sky, road, side walk, car; model 1: road, tree\)'):
        match(STREET, [('road', 'tree')])
    found = match(STREET, [('road', 'tree')], parse_merges(['background=tree']))
    assert found.names == ('background', 'road')


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(MatchingError, match='none in common .*--merge NEW=OLD'):
        match(FINER, [('background', 'water')])


def test_merge_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(MatchingError, match='--merge: found tram, expected classes of .*: back'):
        match(FINER, [ROAD], parse_merges(['movable=tram']))


@pytest.mark.parametrize('text', ['ground', 'ground=', '=road', 'ground= ,'])
def test_merges_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(MatchingError, match='--merge: found .* expected NEW=OLD,OLD'):
        parse_merges([text])


def test_class_merged_twice_is_refused() -> None:
    with pytest.raises(MatchingError, match="'car' is to become 'movable' and 'ground'"):
        parse_merges(['movable=car', 'ground=car'])
