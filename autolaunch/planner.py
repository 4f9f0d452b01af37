"""The first settings: the best that the memory model says fit, by the strategy's own preferences.

Pure. The rules:

- What came up before for the same wish is used again. Where less memory is free than then, its share shrinks and
  its context with it; where more is free, or the engine is another release, one careful step up is tried, once.
- Else every combination of concessions (`candidates`) is looked at. A concession that stands later in the
  strategy's file is more painful: of two candidates that fit, the one that spares the later rung wins. The context
  counts by its length, at the place of its rung.
- A context is always taken from the pessimistic view. Where only the likely view lets a candidate in, it is tried first
  if a failed start is cheap, else the best one of the pessimistic view.
- Nothing fits only if the optimistic view has no candidate either, at any share that the strategy's rungs may reach.
  Where the model or the card is unknown, the strategy's own start stands and the plan says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autolaunch.budget import Budget
from autolaunch.candidates import Candidate, Question, candidates, is_cheap, predicted, refused
from autolaunch.foresight import View
from autolaunch.settings import AUTO, Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings to start with; `fits` None where nothing is known, `context` in tokens as predicted.

    `doubtful` where the spread of the estimate straddles the limit, `hopeful` where it fits only at its best. `why`
    says what decided, in the reader's words; `recalled` settings came up before.
    """

    settings: Settings
    budget: Budget | None = None
    fits: bool | None = None
    doubtful: bool = False
    context: int | None = None
    why: tuple[str, ...] = ()
    recalled: bool = False
    hopeful: bool = False


def plan(question: Question) -> Plan:
    """Return the best settings that fit, from the memory model alone; total and pure."""
    climb = question.climb
    unknown = _unknown(question)
    if unknown:
        return Plan(climb.settings, predicted(question, climb.settings), why=(unknown,))
    offered = candidates(question)
    first = next(offered, None)
    if first is not None and _is_whole(question, first):
        return _planned(question, first, View.PESSIMISTIC)
    found = () if first is None else (first, *offered)
    for floor in dict.fromkeys((question.limits.min_context, question.limits.least_context)):
        choice = _choose(question, found, min(floor, question.full or floor))
        if choice is not None:
            return choice
    own = Plan(climb.settings, predicted(question, climb.settings), fits=False)
    return _from_written_share(question, own) or own


def _is_whole(question: Question, candidate: Candidate) -> bool:
    """Whether nothing can be better: no concession, and the whole context at the worst. The others need no look."""
    at_worst = candidate.context[View.PESSIMISTIC] or 0
    return question.full is not None and at_worst >= question.full and not any(candidate.pain.values())


def _from_written_share(question: Question, own: Plan) -> Plan | None:
    """Return the strategy's own start where nothing but the share written there stands in the way: rungs move that.

    Once that start has failed here and its cause holds, the share that the memory gives comes first.
    """
    climb = question.climb
    share, moves = climb.strategy.start_utilization, any(rung.name == "utilization" for rung in climb.strategy.rungs)
    if share is None or not moves or "gpu_memory_utilization" in climb.pins:
        return None
    free = replace(climb, strategy=replace(climb.strategy, start_utilization=None))
    moved = plan(replace(question, climb=free))
    if not moved.fits:
        return None
    why = f"nothing fits at the share of {share:g} that the strategy starts with"
    if refused(question, climb.settings):
        return replace(moved, why=(why, *moved.why))
    return replace(own, fits=None, why=(f"{why}; its rungs go on from there",))


def _unknown(question: Question) -> str:
    """Return why nothing can be predicted, "" where everything can."""
    climb, situation = question.climb, question.situation
    if climb.strategy.literal:
        return f"the strategy {climb.strategy.name!r} goes down literal steps: nothing is computed"
    if question.beyond:
        return f"your {question.beyond} moves memory in a way that is not known here: the engine's own figures decide"
    if situation.device.total_bytes is None or situation.device.free_bytes is None:
        return "the card's memory cannot be read here: the engine's own figures decide"
    sized = "gpu_memory_utilization" in climb.pins and climb.settings.gpu_memory_utilization is None
    if sized and question.pool_bytes is None:
        return "your own option sizes the KV cache"
    if situation.model.weights is None or situation.model.shape is None:
        return "the model's size is not known before it is loaded: the engine's own figures decide"
    return "" if predicted(question, climb.settings) is not None else "there is no memory model for this start"


def _choose(question: Question, found: tuple[Candidate, ...], floor: int) -> Plan | None:
    """Return the plan at a floor of the context, None where not even the optimistic view has a candidate."""
    ways = {view: _best(question, found, view, floor) for view in View}
    likely, safe, hopeful = ways[View.LIKELY], ways[View.PESSIMISTIC], ways[View.OPTIMISTIC]
    if likely is None:
        why = "nothing fits for certain; this may, if the engine needs less than is usual"
        return None if hopeful is None else _planned(question, hopeful, View.OPTIMISTIC, doubt=why)
    if safe is not None and safe.pain == likely.pain:
        return _planned(question, safe, View.PESSIMISTIC)
    if safe is None:
        return _planned(question, likely, View.LIKELY, doubt="it fits by a narrow margin, and nothing safer is left")
    if is_cheap(likely.budget):
        why = "it fits by a narrow margin; a failed start is cheap, so it is tried before the next concession"
        return _planned(question, likely, View.LIKELY, doubt=why)
    why = "better settings would fit by a narrow margin; a failed start takes long, so the safe ones come first"
    return _planned(question, safe, View.PESSIMISTIC, doubt=why)


def _best(question: Question, found: tuple[Candidate, ...], view: View, floor: int) -> Candidate | None:
    """Return the least painful candidate of a view: the rungs are compared from the last in the file to the first."""
    names = [rung.name for rung in reversed(question.climb.strategy.rungs) if rung.name != "utilization"]
    order = dict.fromkeys(names if "context" in names else [*names, "context"])

    def pain(candidate: Candidate) -> tuple[float, ...]:
        length = candidate.context[view] or 0
        share = candidate.settings.gpu_memory_utilization or 0.0
        return (*(-length if name == "context" else candidate.pain[name] for name in order), share)

    fitting = [candidate for candidate in found if (candidate.context[view] or 0) >= floor]
    return min(fitting, key=pain, default=None)


def _planned(question: Question, candidate: Candidate, view: View, *, doubt: str = "") -> Plan:
    settings = _settled(question, candidate, view)
    context = candidate.context[View.LIKELY] if settings.max_model_len == AUTO else candidate.context[view]
    why = (_shown(question, candidate, context), doubt)
    hopeful = view is View.OPTIMISTIC
    return Plan(settings, candidate.budget, True, bool(doubt), context, tuple(filter(None, why)), hopeful=hopeful)


def _settled(question: Question, candidate: Candidate, view: View) -> Settings:
    """Return a candidate's settings with their context: the engine's to fit, the model's own, or the one predicted."""
    settings, full = candidate.settings, question.full
    if "max_model_len" in question.climb.pins:
        return settings
    capped = full is not None and full != question.situation.model.max_model_len
    reachable = full is not None and (candidate.context[View.OPTIMISTIC] or 0) >= full
    if question.fits_itself and not (capped and reachable):  # the engine's own fitting knows no cap
        return settings.changed(max_model_len=AUTO)
    length = candidate.context[view]
    if length is None or (length == full and not capped):
        return settings.changed(max_model_len=None)
    return settings.changed(max_model_len=length if length == full else length - length % 16 or length)


def _shown(question: Question, candidate: Candidate, context: int | None) -> str:
    full, share = question.full, candidate.settings.gpu_memory_utilization
    at = "" if share is None else f" at utilization {share:g}"
    if context is None or full is None:
        return ""
    return f"the whole context of {full} tokens fits{at}" if context >= full else f"{context} of {full} tokens fit{at}"
