"""How terms add up."""

from __future__ import annotations

from autolaunch.facts import GIB, Basis
from autolaunch.term import NOTHING, Term, estimated, exact, remainder


def test_a_term_knows_how_far_its_range_reaches() -> None:
    term = Term(10, 7, 15, Basis.ESTIMATED)
    assert (term.below, term.above) == (3, 5)
    assert exact(GIB * 1.5) == Term(GIB * 3 // 2, GIB * 3 // 2, GIB * 3 // 2, Basis.EXACT)
    assert exact(GIB * 1.5).gib == 1.5


def test_the_range_of_an_estimate_always_holds_its_figure() -> None:
    assert estimated(5.0, 6.0, 4.0) == Term(5, 5, 5, Basis.ESTIMATED)
    assert estimated(5.9, 1.2, 9.8) == Term(5, 1, 9, Basis.ESTIMATED)


def test_what_is_left_is_the_whole_less_the_parts_and_its_range_that_of_independent_errors() -> None:
    parts = (Term(30, 27, 33, Basis.EXACT), Term(10, 6, 14, Basis.ESTIMATED))
    assert remainder(100, parts) == Term(60, 55, 65, Basis.ESTIMATED)


def test_what_is_left_may_be_less_than_nothing() -> None:
    assert remainder(10, (exact(25),)) == Term(-15, -15, -15, Basis.EXACT)


def test_what_is_left_is_known_as_well_as_the_worst_known_part() -> None:
    measured = Term(1, 1, 1, Basis.MEASURED)
    assert remainder(10, (exact(1), measured)).basis is Basis.MEASURED
    assert remainder(10, (measured, estimated(1, 1, 1))).basis is Basis.ESTIMATED
    assert remainder(10, ()) == Term(10, 10, 10, Basis.EXACT)
    assert exact(0) == NOTHING
