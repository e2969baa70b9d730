"""What the search knows of a mask, and how it judges shapes."""

from __future__ import annotations

import cv2
import numpy as np

from openus_data.cone.fit import fans, inverted_fans, slabs, trace
from openus_data.cone.panels import separate
from openus_data.cone.parts import Parts
from openus_data.cone.profile import Mask, best_circle, profile
from openus_data.cone.score import scores
from openus_data.cone.search import search_mask
from openus_data.cone.shape import Fan, Slab


def drawn(shape: Fan | Slab) -> Mask:
    """The mask (150, 200) of a shape."""
    cells = np.zeros((150, 200), np.uint8)
    cv2.fillPoly(cells, [(shape.outline() - 0.5).round().astype(np.int32)], 1)
    return cells.view(np.bool_)


BOX = Slab(top_left=40, top_right=160, bottom_right=160, bottom_left=40, top=20, bottom=130)
FAN = Fan(apex_x=100, apex_y=5, left=-0.6, right=0.6, near=20, far=130, box=(0, 0, 200, 150))


def test_the_outline_of_a_mask_upside_down_is_its_outline_turned() -> None:
    mask = np.random.default_rng(2).random((40, 60)) > 0.97
    turned, direct = profile(mask).flipped(), profile(np.ascontiguousarray(mask[::-1]))
    assert turned.ends == direct.ends and turned.size == direct.size
    assert sorted(turned.points.tolist()) == sorted(direct.points.tolist())
    assert turned.box[0] == direct.box[0] and turned.box[2] == direct.box[2]


def test_rows_that_reach_the_rim_of_the_frame_are_no_border() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[5:15, :12] = True
    border = profile(mask)
    assert len(border.left) == 0 and (border.right[:, 0] == 12).all()
    assert border.box == (0, 5, 12, 15)


def test_only_a_slab_has_a_flat_top_and_a_flat_bottom() -> None:
    box, fan = trace(drawn(BOX)), trace(drawn(FAN))
    assert box.flat_top and box.flat_bottom and not box.round_bottom
    assert fan.round_bottom and not fan.flat_bottom


def test_upright_slabs_are_proposed_once_and_leaning_ones_as_well() -> None:
    leaning = Slab(top_left=60, top_right=140, bottom_right=180, bottom_left=20, top=20, bottom=130)
    assert len(slabs(trace(drawn(BOX)))) == 1
    _, found = slabs(trace(drawn(leaning)))
    assert abs(found.top_left - 60) < 1.5 and abs(found.bottom_right - 180) < 1.5


def test_a_fan_is_found_again_upright_and_upside_down() -> None:
    (found, *_) = fans(trace(drawn(FAN)))
    assert abs(found.left + 0.6) < 0.02 and abs(found.far - 130) < 2 and abs(found.near - 20) < 2
    (turned, *_) = inverted_fans(trace(np.ascontiguousarray(drawn(FAN)[::-1])))
    assert turned.inverted and abs(turned.apex_y - 145) < 2


def test_a_tall_column_beside_a_scan_area_is_no_panel_but_a_like_one_is() -> None:
    for column, count in (((5, 180, 200, 236), 0), ((40, 106, 160, 300), 2)):
        top, bottom, left, right = column
        labels = np.zeros((190, 310), np.uint16)
        labels[40:106, 5:148], labels[top:bottom, left:right] = 1, 2
        area = np.bincount(labels.ravel())
        parts = Parts(labels=labels, order=np.array([1, 2]), area=area)
        assert len(separate(parts, labels == 1)) == count


def test_a_circle_needs_half_of_the_points() -> None:
    angle = np.linspace(0.2, np.pi - 0.2, 80)
    arc = np.stack([100 + 60 * np.cos(angle), 20 + 60 * np.sin(angle)], 1)
    found = best_circle(arc)
    assert found is not None and np.allclose(found, (100, 20, 60), atol=0.5)
    straight = np.stack([np.linspace(0, 200, 200), np.full(200, 140.0)], 1)
    assert best_circle(np.concatenate([arc[::2], straight])) is None


def test_a_shape_that_is_its_mask_has_edges_all_round_and_no_echo_beyond() -> None:
    exact, wide = scores([BOX.outline(), BOX.outline() * (1.2, 1.0)], drawn(BOX))
    assert exact.support > 0.95 and exact.breach < 0.03 and exact.cover > 0.97 and exact.spill < 0.03
    assert wide.total < exact.total


def test_the_shape_of_a_clean_mask_is_found_at_its_first_trial() -> None:
    for shape in (BOX, FAN):
        found = search_mask(drawn(shape))
        assert found is not None and isinstance(found.shape, type(shape)) and found.merit > 1.45
