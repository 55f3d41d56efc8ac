"""What a scan's sketches must cost at least, from its sizes alone."""

from dataclasses import dataclass, replace
from math import prod

from attnsearch.scanning.plan import ScanPlan
from attnsearch.scanning.subject import Subject
from attnsearch_kernels.cost import (
    CallShape,
    attention_flops,
    find_device,
    floor_microseconds,
    sketch_flops,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchCost:
    """What the sketched attention of a whole scan must compute, predicted from its sizes."""

    attention_flops: int
    """The attention itself, which sampling without a sketch computes too."""
    sketch_flops: int
    """What the sketches add to it."""
    floor_seconds: float | None
    """Least time for both on the device of the plan; None where its rates are not known."""

    @property
    def sketch_fraction(self) -> float:
        """The added operations as a fraction of the attention's."""
        return self.sketch_flops / self.attention_flops


def sketch_cost(plan: ScanPlan, subject: Subject) -> SketchCost:
    """Predict the cost of every sketched attention call of a scan; nothing is run."""
    layout, anatomy = plan.layout, subject.anatomy
    whole = CallShape(
        batch=layout.samples * len(layout.branches),
        heads=layout.heads,
        tokens=prod(anatomy.grid),
        keys=anatomy.keys,
        channels=anatomy.head_channels,
        roles=len(layout.roles),
        basis=layout.order**2,
    )
    calls = layout.steps * layout.layers
    device = find_device(plan.attributes["device"])
    floor = None
    if device is not None:
        blocks = [layout.block_slice(index) for index in range(layout.blocks)]
        rows = [(block.stop - block.start) * len(layout.branches) for block in blocks]
        floors = [
            floor_microseconds(replace(whole, batch=batch), device, itemsize=anatomy.itemsize)
            for batch in rows
        ]
        floor = calls * sum(block.microseconds for block in floors) / 1e6
    return SketchCost(
        attention_flops=calls * attention_flops(whole),
        sketch_flops=calls * sketch_flops(whole),
        floor_seconds=floor,
    )
