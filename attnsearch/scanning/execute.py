"""Carries out a plan: sample a block, sketch its maps, judge its images, commit it.

While one block is sampled the one before it is written, by a thread of its own. So memory holds
two blocks, whatever the number of samples and however many steps they take to finish, and a kill
costs two. Any number of processes may carry out the same plan at once: each takes the first block
that nobody has, and the last to finish waits for the blocks of the others.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter, sleep
from typing import Final

from attnsearch.scanning.painting import Painter
from attnsearch.scanning.plan import ScanPlan
from attnsearch.scanning.subject import Arrays, Subject
from attnsearch.store import Place, ScanWriter, Turn

_LOOK_AGAIN_SECONDS: Final = 0.5


def execute_plan(
    plan: ScanPlan,
    subject: Subject,
    store: Place,
    advance: Callable[[int], None] = lambda _: None,
    news: Callable[[str], None] = lambda _: None,
    blocks: range | None = None,
) -> None:
    """Run a plan into a store: every block that is not there yet, or those among some.

    `advance` is told the number of maps done: at once those found in the store, then block by
    block, from the thread that writes for those of this process. `news` is told in words what is
    out of the ordinary: that it waits for another process, or paints fewer samples at once.
    A store is made if need be, but not for some blocks alone: others are in it already.

    Raises:
        StoreError: the store cannot be written, holds a different scan of that name, or is gone.
        AttnsearchError: the weights are not usable, or sampling does not go as planned.
    """
    layout = plan.layout
    subject.prepare()
    painter = Painter(plan, subject, news)
    maps_per_sample = layout.maps // layout.samples
    with (
        ScanWriter.open(
            store,
            plan.name,
            layout,
            plan.coordinates,
            plan.attributes,
            store_is_there=blocks is not None,
        ) as writer,
        ThreadPoolExecutor(max_workers=1) as disk,
    ):

        def done(block: int) -> None:
            rows = layout.block_slice(block)
            advance((rows.stop - rows.start) * maps_per_sample)

        def commit(block: int, arrays: Arrays) -> None:
            writer.write_block(block, arrays)
            done(block)

        there = writer.committed()
        wanted = range(layout.blocks) if blocks is None else blocks
        for block in there.intersection(wanted):
            done(block)
        waiting = [block for block in wanted if block not in there]
        told: list[int] = []
        last: Future[None] | None = None
        while waiting:
            turns = {}
            for block in list(waiting):
                turns[block] = turn = writer.claim(block)
                if turn is Turn.OURS:
                    arrays = painter.paint(layout.block_slice(block))
                    if last is not None:
                        last.result()  # no block follows a failed one
                    last = disk.submit(commit, block, arrays)
                elif turn is Turn.DONE:
                    done(block)
                if turn is not Turn.TAKEN:
                    waiting.remove(block)
            if waiting and Turn.OURS not in turns.values():
                if waiting != told:
                    news(f"waiting for {len(waiting)} blocks that other processes sample")
                    told = list(waiting)
                sleep(_LOOK_AGAIN_SECONDS)
        if last is not None:
            last.result()


def estimate_seconds(plan: ScanPlan, subject: Subject) -> float:
    """Predicted duration of a whole scan, from one block painted in two steps and in three."""
    rows = plan.layout.block_slice(0)
    subject.prepare()

    def seconds(steps: int) -> float:
        begin = perf_counter()
        subject.paint(plan.samples(rows), replace(plan.sampler, steps=steps), None)
        return perf_counter() - begin

    # Not in one step, which some pipelines take for that of a distilled model.
    two, three = (min(seconds(steps) for _ in range(2)) for steps in (2, 3))
    block = two + (plan.sampler.steps - 2) * max(three - two, 0.0)
    return block * plan.layout.samples / (rows.stop - rows.start)
