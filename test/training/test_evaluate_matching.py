"""Which classes of models and data are the same, and when nobody can tell."""

from __future__ import annotations

import pytest

pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from training.class_matching import (
    elsewhere, match, match_as_learnt, MatchingError, merge_texts, parse_merges,
)
from training.datasets import Taxonomy, TAXONOMIES
from training.learnt import from_provenance, from_run, Learnt

ROAD = ('background', 'road')
FINER = ('background', 'road', 'ground', 'movable')
STREET = ('sky', 'road', 'side_walk', 'car')

#: A model of road and the rest that took ground for road, and one that did not.
GROUND_TOO, ROAD_ALONE = (
    Learnt(TAXONOMIES['road'], merge) for merge in ((0, 1, 1, 0), (0, 1, 0, 0)))
EACH = Learnt(TAXONOMIES['road'], (0, 1, 2, 3))


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


# -- as models learnt them ---------------------------------------------------------------------


def test_classes_count_as_what_a_model_learnt_them_as() -> None:
    assert elsewhere(FINER, ROAD, ROAD_ALONE) == elsewhere(FINER, ROAD, None) == {}
    assert elsewhere(FINER, ROAD, GROUND_TOO) == {'ground': 'road'}
    found = match_as_learnt(FINER, [ROAD], [GROUND_TOO])
    assert found is not None and found.names == ROAD
    assert found.from_data[:5].tolist() == [0, 1, 1, 0, 255]
    assert found.from_models[0][:3].tolist() == [0, 1, 255]
    # Of no common name, but learnt from road.
    found = match_as_learnt(FINER, [('rest', 'Drivable')], [GROUND_TOO])
    assert found is not None and found.names == ('rest', 'drivable')
    assert found.from_data[:4].tolist() == [0, 1, 1, 0]
    # Of another taxonomy: by name, but for what it learnt.
    found = match_as_learnt(('ground', 'water', 'road'), [ROAD], [GROUND_TOO])
    assert found is not None and found.from_data[:3].tolist() == [0, 1, 0]


def test_exchanged_names_are_those_that_were_learnt() -> None:
    found = match_as_learnt(
        ('a', 'b'), [('a', 'b')], [Learnt(Taxonomy('ab', ('a', 'b')), (1, 0))])
    assert found is not None
    assert found.from_models[0][:2].tolist() == [
        found.from_data[1], found.from_data[0]] == [1, 0]


def test_models_that_tell_finer_classes_or_nothing_follow() -> None:
    for other, learnt, table in ((FINER, EACH, [0, 1, 1, 0]), (ROAD, None, [0, 1])):
        found = match_as_learnt(FINER, [other, ROAD], [learnt, GROUND_TOO])
        assert found is not None and found.names == ROAD
        assert found.from_data[:4].tolist() == [0, 1, 1, 0]
        assert found.from_models[0][:len(other)].tolist() == table


def test_what_cannot_be_had_at_once_is_not_had() -> None:
    assert match_as_learnt(FINER, [ROAD, ROAD], [GROUND_TOO, ROAD_ALONE]) is None
    movable = Learnt(TAXONOMIES['road'], (0, 1, 0, 1))
    assert match_as_learnt(FINER, [ROAD, ROAD], [GROUND_TOO, movable]) is None
    elsewhere_too = Learnt(TAXONOMIES['road'], (0, 1, 2, 0))
    assert match_as_learnt(
        FINER, [ROAD, ('background', 'road', 'walk')], [GROUND_TOO, elsewhere_too]) is None


def test_merges_can_be_typed() -> None:
    merges = {'ground': 'road', 'side walk': 'road', 'car': 'movable'}
    assert merge_texts(merges) == ['road=ground,side walk', 'movable=car']
    assert parse_merges(merge_texts(merges)) == merges


def test_what_was_learnt_is_read_as_it_was_told() -> None:
    told = GROUND_TOO.told(ROAD)
    assert told['merge'] == {'background': ['background', 'movable'], 'road': ['road', 'ground']}
    assert from_provenance(told, ROAD) == GROUND_TOO
    described = {'config': {'merge': [0, 1, 1, 0]}, 'taxonomy': told['taxonomy']}
    assert from_run(described, 2) == GROUND_TOO
    assert from_run({'config': {'merge': [0, 1, 1, 0]}}, 2) == GROUND_TOO  # an older run
    assert from_run(described, 1) is None
    assert from_run({'config': {'merge': [0, 1, 1], 'taxonomy': 'road'}}, 2) is None
    for damaged in ({}, {'taxonomy': told['taxonomy']}, {**told, 'merge': {'road': ['road']}},
                    {**told, 'merge': {'street': ['road']}}, {**told, 'taxonomy': ['road']},
                    {**told, 'merge': ['road']}):
        assert from_provenance(damaged, ROAD) is None
    for config in (None, {}, {'merge': 'ab'}, {'merge': [0], 'taxonomy': 'absent.json'}):
        assert from_run({'config': config}, 2) is None
