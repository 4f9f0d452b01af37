"""The first settings: the least painful that fit, pins kept, doubt told, what came up before used again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from autolaunch.candidates import Question, candidates
from autolaunch.case import Limits
from autolaunch.climb import Step, begin
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Holder, Model, Situation, Variant, Weights
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.ladder import next_step
from autolaunch.past import Outcome, Past
from autolaunch.planner import Plan, plan
from autolaunch.recall import recall
from autolaunch.settings import AUTO, Settings
from autolaunch.shape import CacheKind, CacheLayers, Shape
from autolaunch.shortfall import nearest_plan, shortfall
from autolaunch.sizes import gib
from autolaunch.strategy import load_strategy

GLM = Shape(
    architecture="GlmForCausalLM",
    hidden_size=4096,
    intermediate_size=13696,
    num_hidden_layers=40,
    num_attention_heads=32,
    num_key_value_heads=2,
    head_dim=128,
    vocab_size=151552,
    caches=(CacheLayers(CacheKind.FULL, 40, values=512, heads=2),),
)
WEIGHTS = Weights(18799902784, linear_bytes=16316891136)
MODEL = Model(131072, name="glm", shape=GLM, weights=WEIGHTS)
AWQ = Variant("org/glm-awq", "awq", Weights(6 * GIB))
WISH = "a wish"
CONCESSIONS = ("max_num_seqs", "enforce_eager", "kv_cache_dtype", "tensor_parallel_size", "quantization", "model")


def situation(total: float = 24.0, free: float | None = None, **more: Any) -> Situation:
    """Return GLM-4-9B on a card of so many GiB, all of it free unless said."""
    device = Device(
        DeviceKind.CUDA, "card", int(total * GIB), int((total if free is None else free) * GIB),
        more.pop("capability", (8, 9)), holders=more.pop("holders", ()),
    )  # fmt: skip
    return Situation(device, Engine(more.pop("version", "0.24.0"), DeviceKind.CUDA), more.pop("model", MODEL))


def ask(
    there: Situation,
    pinned: Settings | None = None,
    *,
    strategy: str = "default",
    past: Past | None = None,
    **limits: Any,
) -> Question:
    """Return the question of a first start."""
    pinned = pinned or Settings()
    climb = begin(load_strategy(strategy), Limits(**limits), pinned, pins=frozenset(pinned.as_json()), situation=there)
    return Question(climb, there, past or Past(), WISH)


def conceded(settings: Settings) -> set[str]:
    """Return the names of what a plan gives up."""
    return {name for name in CONCESSIONS if getattr(settings, name) is not None}


# What fits


def test_a_card_with_room_gets_the_engines_own_settings() -> None:
    found = plan(ask(situation(79.18)))
    assert found.fits is True
    assert not found.doubtful
    assert found.settings == Settings(gpu_memory_utilization=0.92, max_model_len=AUTO)
    assert found.context == 131072


def test_where_the_whole_context_does_not_fit_the_share_is_as_large_as_the_memory_allows() -> None:
    found = plan(ask(situation(24.0, 23.2)))
    assert conceded(found.settings) == set()
    share = found.settings.gpu_memory_utilization or 0
    assert 0.92 < share <= 0.95
    assert share * 24.0 < 23.2 - 0.5
    assert 60_000 < (found.context or 0) < 131072


def test_no_more_is_taken_than_the_whole_context_needs() -> None:
    """On 26 GiB the default share lacks some 0.2 GiB for 131,072 tokens: no reason to go to 0.95."""
    need = next(
        total
        for total in (25.0, 25.25, 25.5, 25.75, 26.0, 26.25, 26.5, 26.75, 27.0)
        if plan(ask(situation(total))).context == 131072
    )
    share = plan(ask(situation(need + 0.2))).settings.gpu_memory_utilization or 0
    assert 0.92 <= share < 0.95


def test_what_the_model_lacks_is_given_up_in_the_strategys_order() -> None:
    """The default gives up the context, then batch, eager mode, and weights only where nothing else is left."""
    rungs = [conceded(plan(ask(situation(total))).settings) for total in (24.0, 20.0, 16.0)]
    assert rungs[0] == set()
    assert rungs[1]
    assert "quantization" not in rungs[1]
    assert "quantization" in rungs[2]


def test_a_strategy_that_keeps_the_context_gives_up_everything_else_first() -> None:
    found = plan(ask(situation(24.0, 23.2), strategy="keep-context"))
    assert found.context == 131072
    assert conceded(found.settings) == {"kv_cache_dtype"}
    old = plan(ask(situation(24.0, 23.2, capability=(8, 0)), strategy="keep-context"))
    assert old.context == 131072
    assert conceded(old.settings) == {"quantization"}


def test_a_concession_is_not_kept_where_a_later_one_makes_it_needless() -> None:
    """The real ladder would have come to FP8 weights over eager mode and a small batch, and kept both."""
    settings = plan(ask(situation(16.0))).settings
    assert conceded(settings) == {"quantization"}


def test_more_cards_are_used_before_anything_is_given_up() -> None:
    found = plan(ask(situation(24.0, 23.2), gpus=2))
    assert conceded(found.settings) == {"tensor_parallel_size"}
    assert found.context == 131072


def test_the_cards_must_share_the_heads_out_evenly() -> None:
    odd = replace(MODEL, shape=replace(GLM, num_attention_heads=27, num_key_value_heads=9))
    assert plan(ask(situation(24.0, model=odd), gpus=2)).settings.tensor_parallel_size is None


@pytest.mark.parametrize(("version", "expected"), [("0.24.0", AUTO), ("0.14.0", AUTO), ("0.13.0", None)])
def test_an_engine_that_can_fits_the_context_itself(version: str, expected: int | None) -> None:
    length = plan(ask(situation(24.0, 23.2, version=version))).settings.max_model_len
    assert length == expected if expected else 16_384 < (length or 0) < 131072


def test_a_cap_that_fits_is_set_and_one_that_does_not_is_the_engines_to_fit() -> None:
    assert plan(ask(situation(24.0), max_context=32768)).settings.max_model_len == 32768
    assert plan(ask(situation(24.0, 23.2), max_context=130000)).settings.max_model_len == AUTO


def test_several_requests_at_once_share_the_cache() -> None:
    one, four = (plan(ask(situation(24.0), concurrency=count)) for count in (1, 4))
    assert (four.context or 0) < (one.context or 0) / 3.5
    assert four.settings.max_model_len == four.context


def test_memory_of_the_users_own_is_the_budget() -> None:
    found = plan(ask(situation(79.18), memory_bytes=22 * GIB))
    assert found.budget is not None
    assert found.budget.requested_bytes <= 22 * GIB


# Pins


@pytest.mark.parametrize(
    "pinned",
    [
        Settings(gpu_memory_utilization=0.8),
        Settings(max_model_len=8192),
        Settings(enforce_eager=False),
        Settings(kv_cache_dtype="auto"),
        Settings(quantization="fp8"),
        Settings(max_num_seqs=512),
    ],
)
def test_what_the_user_pinned_stands_in_the_plan(pinned: Settings) -> None:
    for total in (24.0, 16.0):
        settings = plan(ask(situation(total), pinned, strategy="keep-context")).settings
        for name in pinned.as_json():
            assert getattr(settings, name) == getattr(pinned, name)


def test_a_pinned_context_makes_everything_else_give_way() -> None:
    found = plan(ask(situation(24.0, 23.2), Settings(max_model_len=131072)))
    assert found.context == 131072
    assert conceded(found.settings) == {"kv_cache_dtype"}


# What cannot be told


@pytest.mark.parametrize(
    ("there", "strategy", "why"),
    [
        (situation(), "classic", "literal steps"),
        (replace(situation(), device=Device(DeviceKind.CUDA)), "default", "memory cannot be read"),
        (situation(model=Model(131072)), "default", "size is not known"),
    ],
)
def test_where_nothing_is_known_the_strategys_own_start_stands(there: Situation, strategy: str, why: str) -> None:
    question = ask(there, strategy=strategy)
    found = plan(question)
    assert (found.settings, found.fits) == (question.climb.settings, None)
    assert why in found.why[0]


def test_a_cache_that_the_user_sized_is_not_planned() -> None:
    question = ask(situation())
    question = replace(question, climb=replace(question.climb, pins=frozenset({"gpu_memory_utilization"}),
                                               settings=Settings()))  # fmt: skip
    assert plan(question).why == ("your own option sizes the KV cache",)


# A share that the strategy writes down


def from_share(share: float, there: Situation, pinned: Settings | None = None, *, past: Past | None = None) -> Question:
    """Return the question of a first start with the default ladder, begun at a written share."""
    written = replace(load_strategy("keep-quality"), start_utilization=share)
    pinned = pinned or Settings()
    climb = begin(written, Limits(), pinned, pins=frozenset(pinned.as_json()), situation=there)
    return Question(climb, there, past or Past(), WISH)


def test_a_written_share_is_kept_where_anything_fits_in_it() -> None:
    found = plan(from_share(0.8, situation(24.0)))
    assert (found.fits, found.settings.gpu_memory_utilization) == (True, 0.8)


@pytest.mark.parametrize(("share", "free"), [(0.3, 24.0), (0.95, 22.0)])
def test_a_written_share_in_which_nothing_fits_is_begun_with_where_the_rungs_can_move_it(
    share: float, free: float
) -> None:
    """It was refused before anything was started, although the ladder's first step cured it."""
    question = from_share(share, situation(24.0, free))
    found = plan(question)
    assert (found.fits, found.settings) == (None, question.climb.settings)
    (why,) = found.why
    assert why == f"nothing fits at the share of {share:g} that the strategy starts with; its rungs go on from there"
    assert found.budget is not None


def test_a_written_share_that_has_failed_is_not_begun_with_again() -> None:
    there = situation(24.0)
    first = from_share(0.3, there).climb.settings
    past = Past((failed(first, there, Kind.KV_NONE),))
    found = plan(from_share(0.3, there, past=past))
    assert found.fits is True
    assert (found.settings.gpu_memory_utilization or 0) > 0.8
    assert found.why[0] == "nothing fits at the share of 0.3 that the strategy starts with"


def test_a_written_share_is_no_excuse_where_no_share_would_do() -> None:
    """Neither a rung that could move it, nor a card on which anything fits, nor the user's own share."""
    fixed = from_share(0.3, situation(24.0))
    rungs = tuple(rung for rung in fixed.climb.strategy.rungs if rung.name != "utilization")
    fixed = replace(fixed, climb=replace(fixed.climb, strategy=replace(fixed.climb.strategy, rungs=rungs)))
    pinned = from_share(0.9, situation(24.0), Settings(gpu_memory_utilization=0.3))
    assert [plan(question).fits for question in (fixed, from_share(0.3, situation(16.0)), pinned)] == [False] * 3


# Doubt


def around_the_edge() -> list[Plan]:
    """Return the plans for cards on which the weights come near to filling the memory."""
    return [plan(ask(situation(18.0 + step / 8), strategy="keep-quality")) for step in range(80)]


def test_doubt_is_told_with_its_reason_and_only_where_the_estimate_straddles_the_limit() -> None:
    plans = around_the_edge()
    assert {found.fits for found in plans} == {True, False}
    assert {found.doubtful for found in plans} == {True, False}
    for found in plans:
        assert found.doubtful == any("margin" in why or "for certain" in why for why in found.why)
    assert plans[0].fits is False
    assert not plans[-1].doubtful


def test_large_weights_take_the_safe_settings_first() -> None:
    """A failed start of 60 GiB takes ten minutes: where two plans differ by a margin the safe one comes first."""
    large = replace(MODEL, weights=Weights(60 * GIB, linear_bytes=56 * GIB))
    plans = [plan(ask(situation(64.0 + step / 10, model=large))) for step in range(60)]
    doubtful = [found for found in plans if found.doubtful and found.fits]
    assert any("takes long" in found.why[-1] for found in doubtful)


# Nothing fits


def words(question: Question) -> tuple[str, ...]:
    """Return what would help, for a question that nothing fits."""
    assert plan(question).fits is False
    return shortfall(question)[1]


def test_what_would_help_is_named_nearest_first_and_was_tried_on_the_memory_model() -> None:
    question = ask(situation(16.0), strategy="keep-quality")
    assert words(question) == (
        "allow quantized weights with --strategy default",
        "use a card with 19 GiB",
        "use 2 such cards with --gpus 2",
    )
    assert "16.00 GiB of 16.00 GiB are free" in shortfall(question)[0]


def test_the_sentence_adds_up_to_more_than_is_free_and_counts_the_cards() -> None:
    """It said that 4.76 GiB do not fit into 6.00 free ones: CUDA's context, NCCL and the four cards were missing."""
    question = ask(situation(6.0, version="0.32.0", capability=None), gpus=4)
    assert plan(question).fits is False
    said = shortfall(question)[0]
    figures = [float(figure) for figure in re.findall(r"([\d.]+) GiB (?:for|of context)", said)]
    assert sum(figures) > 6.0
    assert " for the CUDA context and NCCL and " in said
    assert " tokens of context on each of 4 cards with every concession that is allowed do not fit: " in said


def test_the_plan_that_is_shown_is_the_one_that_the_sentence_is_about() -> None:
    question = ask(situation(6.0, version="0.32.0", capability=None), gpus=4)
    own = plan(question)
    shown = nearest_plan(question, own)
    assert shown.budget is not None
    assert shown.settings.tensor_parallel_size == 4
    assert shown.budget.weights.bytes < WEIGHTS.loaded_bytes / 3
    assert shortfall(question)[0].startswith(
        gib(
            sum(
                term.bytes
                for term in (
                    shown.budget.weights,
                    shown.budget.non_torch,
                    shown.budget.activation,
                    shown.budget.cudagraph,
                )
            )
        )
    )
    nothing = ask(situation(24.0, 0.1))
    assert nearest_plan(nothing, plan(nothing)) == plan(nothing)


def test_the_users_own_context_is_named_first_with_what_would_do() -> None:
    """78704 tokens were named, what was likely to fit; of these the real engine lacked 112."""
    question = ask(situation(24.0, 23.2), Settings(max_model_len=131072), strategy="keep-quality")
    first = words(question)[0]
    length = int(first.split()[2])
    assert first == f"give --max-model-len {length} instead of your 131072"
    shorter = plan(ask(situation(24.0, 23.2), Settings(max_model_len=length), strategy="keep-quality"))
    assert (shorter.fits, shorter.doubtful) == (True, False)


def test_memory_that_others_hold_is_named_with_its_holder() -> None:
    holders = (Holder(4711, "python", 12 * GIB),)
    question = ask(situation(24.0, 12.0, holders=holders), strategy="keep-quality")
    assert any("python (pid 4711) holds 12.00 GiB" in word for word in words(question))


def test_the_users_own_bound_is_named_and_no_other_memory_beside_it() -> None:
    """`--memory 2GiB` was told that 22 GiB of 24 are free, a pinned share to use a larger card."""
    bounded = ask(situation(80.0), Settings(max_model_len=131072), strategy="keep-quality", memory_bytes=20 * GIB)
    assert words(bounded)
    assert shortfall(bounded)[0].endswith(" do not fit: --memory allows 20.00 GiB, 80.00 GiB of 80.00 GiB are free")
    pinned = ask(situation(80.0), Settings(gpu_memory_utilization=0.2), strategy="keep-quality")
    assert [word for word in words(pinned) if "a card with" in word or word.startswith("free")] == []
    said = "do not fit: your --gpu-memory-utilization 0.2 allows 16.00 GiB, 80.00 GiB of 80.00 GiB are free"
    assert shortfall(pinned)[0].endswith(said)


def test_a_share_above_what_the_engine_finds_free_is_told_so_and_not_as_a_model_that_is_too_large() -> None:
    said, ways = shortfall(ask(situation(), Settings(gpu_memory_utilization=1.0)))
    assert said.startswith("your --gpu-memory-utilization 1 asks for 24.00 GiB; 24.00 GiB of 24.00 GiB are free, 23.")
    assert said.endswith(" once the engine's own context is there")
    assert ways[0].startswith("allow --gpu-memory-utilization 0.9")


def test_a_card_with_nothing_left_is_to_be_freed() -> None:
    held = (Holder(77, "python", int(23.5 * GIB)),)
    question = ask(situation(24.0, 0.5, holders=held))
    assert plan(question).fits is False
    pinned = ask(situation(24.0, 0.5, holders=held), Settings(gpu_memory_utilization=0.9))
    assert shortfall(pinned)[1] == shortfall(question)[1]
    assert shortfall(question)[1][0] == "free this card: 23.50 GiB of it are held; python (pid 77) holds 23.50 GiB"


def test_a_host_is_not_called_a_card() -> None:
    small, crowded = (Device(DeviceKind.CPU, "host", total * GIB, 12 * GIB) for total in (16, 64))
    engine = Engine("0.32.0", DeviceKind.CPU)
    said = [words(ask(Situation(host, engine, MODEL), strategy="keep-quality")) for host in (small, crowded)]
    assert any(word.startswith("give the host ") and word.endswith(" GiB of memory") for word in said[0])
    assert any(word.startswith("free ") and word.endswith(" more of the host's memory") for word in said[1])
    assert not any("card" in word for word in (*said[0], *said[1]))


def test_a_lighter_sibling_is_named() -> None:
    there = situation(12.0, capability=(7, 5), model=replace(MODEL, variants=(AWQ,)))
    question = ask(there, strategy="keep-quality")
    assert any(word.startswith("serve org/glm-awq instead: 6.00 GiB") for word in words(question))
    assert plan(ask(there)).settings.model == "org/glm-awq"


# What came up before


SAID = Effective(max_model_len=75_000, kv_cache_tokens=75_008, available_kv_gib=2.86, weights_gib=17.56)


def came_up(settings: Settings, there: Situation, *, said: Effective = SAID, **more: Any) -> Outcome:
    """Return a start that came up."""
    device = there.device
    return Outcome(
        settings, None, said, there.engine.version, device.total_bytes, device.free_bytes, wish=WISH, at=1.0, **more
    )


def failed(settings: Settings, there: Situation, kind: Kind) -> Outcome:
    """Return a start that failed."""
    return replace(came_up(settings, there), failure=Failure(kind))


def recalled(question: Question, *, now: float = 0.0) -> Plan:
    """Return the plan for a first attempt, at a time of day that matters to few tests."""
    return recall(question, now=now)


KNOWN = Settings(gpu_memory_utilization=0.9, max_model_len=AUTO, enforce_eager=True)


def test_a_second_start_uses_what_came_up() -> None:
    there = situation(24.0, 23.2)
    found = recalled(ask(there, past=Past((came_up(KNOWN, there),))))
    assert (found.settings, found.fits, found.context) == (KNOWN, True, 75_000)
    assert found.why == ("these settings came up before",)


def test_what_came_up_for_another_wish_is_not_used() -> None:
    there = situation(24.0, 23.2)
    other = replace(came_up(KNOWN, there), wish="another")
    assert recalled(ask(there, past=Past((other,)))).settings != KNOWN


def test_less_memory_shrinks_the_share_and_a_fitted_context() -> None:
    then, now = situation(24.0, 23.2), situation(24.0, 21.2)
    found = recalled(ask(now, past=Past((came_up(KNOWN, then),))))
    share = found.settings.gpu_memory_utilization or 0
    assert share * 24.0 < 21.2 - 0.5
    assert found.settings.changed(gpu_memory_utilization=0.9) == KNOWN
    assert 0 < (found.context or 0) < 75_000
    assert "2.00 GiB less are free" in found.why[0]

    fixed = KNOWN.changed(max_model_len=75_000)
    settings = recalled(ask(now, past=Past((came_up(fixed, then),)))).settings
    assert settings.max_model_len == found.context
    assert settings.enforce_eager


def test_less_memory_that_is_still_enough_changes_nothing() -> None:
    then, now = situation(24.0, 24.0), situation(24.0, 23.4)
    found = recalled(ask(now, past=Past((came_up(KNOWN, then),))))
    assert found.settings == KNOWN
    assert "still enough" in found.why[0]


def test_more_memory_or_another_release_is_worth_one_step_up_and_only_one() -> None:
    then, now = situation(24.0, 18.6), situation(24.0, 23.4)
    small = KNOWN.changed(gpu_memory_utilization=0.75, quantization="fp8")
    for earlier, later in ((then, now), (replace(now, engine=Engine("0.19.0", DeviceKind.CUDA)), now)):
        past = Past((came_up(small, earlier),))
        climbed = recalled(ask(later, past=past))
        assert conceded(climbed.settings) == set()
        assert "one step up" in climbed.why[0]
        refused = failed(climbed.settings, later, Kind.GRAPH_OOM)
        again = recalled(ask(later, past=Past((came_up(small, earlier), refused, *past.outcomes))))
        assert again.settings != climbed.settings


def test_the_same_memory_is_no_reason_to_climb() -> None:
    there = situation(24.0, 23.4)
    found = recalled(ask(there, past=Past((came_up(KNOWN.changed(quantization="fp8"), there),))))
    assert found.settings == KNOWN.changed(quantization="fp8")


PINNED = Settings(0.9, 8192, max_num_seqs=8, max_num_batched_tokens=2048, enforce_eager=True)


def test_what_served_and_ran_out_of_memory_is_started_again_where_nothing_else_fits() -> None:
    """A service whose settings are pinned once would have ended with 3 at its next start, for a day."""
    there = situation(24.0, 23.2, capability=(7, 5))
    past = Past((ran_out(PINNED, there, at=40.0), came_up(PINNED, there), ran_out(PINNED, there, at=20.0)))
    question = ask(there, PINNED, past=past)
    assert plan(question).fits is False
    found = recalled(question, now=60.0)
    assert (found.fits, found.recalled, found.settings) == (True, True, PINNED)
    assert found.why == ("nothing else fits: these settings ran out of memory in service, and serve until then",)


def test_what_never_came_up_here_is_no_way_out() -> None:
    there = situation(24.0, 23.2, capability=(7, 5))
    ended = ran_out(PINNED, there, at=20.0)
    assert recalled(ask(there, PINNED, past=Past((ended,))), now=60.0).fits is False
    past = Past((ended, replace(came_up(PINNED, there), wish="another")))
    assert recalled(ask(there, PINNED, past=past), now=60.0).fits is False


def test_settings_that_died_in_service_are_not_used_again() -> None:
    there = situation(24.0, 23.2)
    dead = replace(failed(KNOWN, there, Kind.RUNTIME_OOM), in_service=True)
    assert recalled(ask(there, past=Past((dead, came_up(KNOWN, there))))).settings != KNOWN


def ran_out(settings: Settings, there: Situation, *, at: float) -> Outcome:
    """Return a start that came up and ran out of memory in service at a time of day."""
    return replace(failed(settings, there, Kind.RUNTIME_OOM), in_service=True, at=at)


DAY = 86_400.0


def test_a_small_step_down_that_came_up_is_not_taken_for_what_failed() -> None:
    """A share of None is the engine's own and no share of 0; what came up a hair below what failed did come up."""
    there = situation(24.0, 23.2)
    for wide in (KNOWN.changed(gpu_memory_utilization=None), KNOWN.changed(gpu_memory_utilization=0.904)):
        past = Past((came_up(KNOWN, there), ran_out(wide, there, at=0.0)))
        assert recalled(ask(there, past=past), now=1.0).settings == KNOWN


def test_after_a_quiet_day_a_planned_start_takes_one_step_back_up() -> None:
    there = situation(24.0, 23.2)
    wide, middle = KNOWN, KNOWN.changed(max_num_seqs=64)
    narrow = middle.changed(max_num_batched_tokens=512)
    past = Past((came_up(narrow, there), ran_out(middle, there, at=200.0), ran_out(wide, there, at=100.0)))
    assert recalled(ask(there, past=past), now=200.0 + DAY - 1).settings == narrow
    found = recalled(ask(there, past=past), now=200.0 + DAY)
    assert (found.settings, found.fits, found.recalled) == (middle, True, True)
    assert found.why == (
        "these settings ran out of memory in service 1.0 days ago, and none did since: one step back up",
    )
    later = Past((came_up(middle, there), *past.outcomes))
    assert recalled(ask(there, past=later), now=200.0 + 2 * DAY).settings == wide


def test_with_less_memory_than_then_nothing_steps_back_up() -> None:
    then, now = situation(24.0, 23.6), situation(24.0, 23.2)
    narrow = KNOWN.changed(max_num_seqs=64)
    for survivor, failure in ((now, then), (then, now)):
        past = Past((came_up(narrow, survivor), ran_out(KNOWN, failure, at=0.0)))
        assert recalled(ask(now, past=past), now=9 * DAY).settings.max_num_seqs == 64


def test_a_step_back_up_that_fails_at_its_start_is_not_tried_again_while_its_cause_holds() -> None:
    there, fuller = situation(24.0, 23.2), situation(24.0, 20.0)
    narrow = KNOWN.changed(max_num_seqs=64)
    known = (came_up(narrow, there), ran_out(KNOWN, there, at=0.0))
    assert recalled(ask(there, past=Past((failed(KNOWN, there, Kind.GRAPH_OOM), *known))), now=DAY).settings == narrow
    found = recalled(ask(there, past=Past((failed(KNOWN, fuller, Kind.FREE_MEMORY_LOW), *known))), now=DAY)
    assert found.settings == KNOWN


def test_what_came_up_and_failed_since_is_not_started_again() -> None:
    """A climb that ended without coming up leaves the older success the newest: its settings failed here since."""
    then, now = situation(24.0, 24.0), situation(24.0, 23.4)
    for there in (then, now):
        since = failed(KNOWN, there, Kind.SAMPLER_OOM)
        found = recalled(ask(there, past=Past((since, came_up(KNOWN, then)))))
        assert found.settings != KNOWN
        assert not found.recalled


def test_a_setting_that_failed_is_in_no_plan_while_its_cause_holds() -> None:
    there = situation(24.0, 23.2)
    first = plan(ask(there)).settings
    past = Past((failed(first, there, Kind.GRAPH_OOM),))
    assert plan(ask(there, past=past)).settings != first
    slightly_less = situation(24.0, 23.19)
    assert conceded(plan(ask(slightly_less, past=past)).settings) != set()
    newer = replace(there, engine=Engine("0.25.0", DeviceKind.CUDA))
    assert conceded(plan(ask(newer, past=past)).settings) == set()


# Where a card shares the host's memory


GB10 = Device(DeviceKind.CUDA, "NVIDIA GB10", 120 * GIB, 60 * GIB, (12, 1), unified=True)
SHARED = Situation(GB10, Engine("0.24.0", DeviceKind.CUDA), MODEL)
GRAPHS = Failure(Kind.GRAPH_OOM, numbers={"tried_to_allocate_mib": 108.0, "free_gib": 0.01, "total_gib": 120.0})


def ended(there: Situation, settings: Settings, **more: Any) -> Outcome:
    """Return a start that ran out of memory at its graphs."""
    of = {"wish": WISH, "engine_version": "0.24.0", "free_bytes": there.device.free_bytes, **more}
    return Outcome(settings, GRAPHS, Effective(), total_bytes=there.device.total_bytes, **of)


def test_the_step_that_a_failed_start_announced_is_the_next_start_there() -> None:
    """0.921 -> 0.891 was announced; the next run asked for 0.922, with 128 sequences, on a machine it may hang."""
    first = recall(ask(SHARED), now=0.0).settings
    question = ask(SHARED, past=Past((ended(SHARED, first),)))
    step = next_step(replace(question.climb, settings=first), GRAPHS, Effective(), SHARED)
    assert isinstance(step, Step)
    assert (first.gpu_memory_utilization or 0) > (step.climb.settings.gpu_memory_utilization or 0)
    found = recall(question, now=0.0)
    assert found.settings == step.climb.settings
    assert found.why == (f"the last start ended with graph_oom; {step.rung}: {', '.join(map(str, step.changes))}",)


@pytest.mark.parametrize("free", [21, 15])
def test_what_was_announced_is_not_started_where_it_leaves_no_cache(free: int) -> None:
    first = recall(ask(SHARED), now=0.0).settings
    less = replace(SHARED, device=replace(GB10, free_bytes=free * GIB))
    question = ask(less, past=Past((ended(SHARED, first),)))
    assert recall(question, now=0.0) == plan(question)


@pytest.mark.parametrize("more", [{"wish": "another"}, {"engine_version": "0.20.0"}, {"in_service": True}])
def test_a_failure_of_something_else_announces_nothing(more: dict[str, Any]) -> None:
    first = recall(ask(SHARED), now=0.0).settings
    question = ask(SHARED, past=Past((ended(SHARED, first, **more),)))
    assert "the last start ended" not in " ".join(recall(question, now=0.0).why)
    own = situation(24.0)
    usual = ask(own, past=Past((ended(own, recall(ask(own), now=0.0).settings),)))
    assert "the last start ended" not in " ".join(recall(usual, now=0.0).why), "there the ladder went on by itself"


def test_what_came_up_there_goes_before_what_was_announced() -> None:
    first = recall(ask(SHARED), now=0.0).settings
    served = came_up(Settings(0.25, 4096, 8), SHARED)
    question = ask(SHARED, past=Past((ended(SHARED, first), served)))
    assert recall(question, now=0.0).settings == served.settings


def test_a_step_for_a_share_that_is_gone_is_not_started() -> None:
    """After too little at 0.6 the next start had less still, and the length that was for 0.6."""
    wide = replace(SHARED, device=replace(GB10, free_bytes=100 * GIB))
    few = replace(ended(wide, Settings(0.6, AUTO)), failure=Failure(Kind.KV_NONE, numbers={"available_kv_gib": -0.5}))
    question = ask(SHARED, past=Past((few,)))
    assert recall(question, now=0.0) == plan(question)


# A cache that the user sized


def sized(pool: int, there: Situation, **limits: Any) -> Question:
    """Return the question of a start with --kv-cache-memory-bytes."""
    question = ask(there, **limits)
    climb = replace(question.climb, pins=frozenset({"gpu_memory_utilization"}))
    return replace(question, climb=replace(climb, settings=Settings(max_model_len=AUTO)), pool_bytes=pool)


def test_a_cache_of_the_users_size_is_planned_as_it_is() -> None:
    """It was drawn at the engine's usual share, and "cannot be told" stood above it."""
    found = plan(sized(4 * GIB, situation(40.0)))
    assert found.budget is not None
    assert (found.fits, found.budget.kv_cache.bytes, found.context) == (True, 4 * GIB, 104832)
    charged = (found.budget.weights, found.budget.non_torch, found.budget.activation, found.budget.cudagraph)
    assert found.budget.requested_bytes == 4 * GIB + sum(term.bytes for term in charged)
    assert found.settings == Settings(max_model_len=AUTO)


def test_a_cache_of_the_users_size_that_does_not_fit_is_told_so() -> None:
    why, ways = shortfall(sized(9 * GIB, situation(24.0), gpus=1))
    assert "and your 9.00 GiB of KV cache" in why
    assert why.endswith(" do not fit: 24.00 GiB of 24.00 GiB are free")
    assert ways[0] == "leave --kv-cache-memory-bytes (9.00 GiB) to the engine"
    why, _ = shortfall(sized(1 << 20, situation(40.0)))
    assert why == "0.02 GiB for 512 tokens of context do not fit into your --kv-cache-memory-bytes of 0.00 GiB"


@pytest.mark.parametrize(("version", "fits"), [("0.24.0", False), ("0.6.6", True)])
def test_the_share_must_be_free_beside_a_cache_of_the_users_size_too(version: str, fits: bool) -> None:
    """vLLM looks for 0.92 of the card when it begins; releases before 0.8 do not."""
    there = situation(24.0, 20.8, version=version)
    question = sized(GIB, there)
    assert plan(question).fits is fits
    if not fits:
        why, _ = shortfall(question)
        assert why.startswith(
            "vLLM looks for a share of 0.92 (22.08 GiB) when it begins, beside your --kv-cache-memory"
        )
        assert why.endswith("20.80 GiB of 24.00 GiB are free: give --gpu-memory-utilization 0.85 with it")


def test_a_host_that_grew_is_asked_for_as_many_bytes() -> None:
    """Some hosts' memory grows as it is touched: the same share would be twice the bytes."""
    host = Device(DeviceKind.CPU, "host", 8 * GIB, 7 * GIB)
    then = Situation(host, Engine("0.32.0", DeviceKind.CPU), MODEL)
    now = replace(then, device=replace(host, total_bytes=16 * GIB, free_bytes=15 * GIB))
    settings = Settings(gpu_memory_utilization=0.4, max_model_len=AUTO)
    found = recalled(ask(now, past=Past((came_up(settings, then),))))
    assert found.settings.gpu_memory_utilization == 0.2


def test_every_candidate_is_one_combination_and_none_twice() -> None:
    there = situation(24.0, model=replace(MODEL, variants=(AWQ,)))
    settings = [candidate.settings for candidate in candidates(ask(there, gpus=2))]
    assert len(settings) == len(set(settings)) == 2 * 4 * 2 * 2 * 3
