"""Where the weights of a training begin, if not at random."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from attnsearch.encoders import EncoderSpec
from attnsearch.errors import ConfigError
from attnsearch.intake import one_line
from attnsearch.models import Checkpoint, DiT, DiTConfig, Objective, Origin
from attnsearch.task.spec import TaskSpec, held_out_combinations


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WarmStart:
    """A trained model whose averaged weights another training begins with.

    The average is what a model is judged by, and all that a published one has.
    """

    name: str
    checkpoint: Checkpoint
    """As read from its file."""

    @property
    def origin(self) -> Origin:
        """What a checkpoint says of where its training began."""
        return Origin(name=self.name, digest=self.checkpoint.digest)

    def check(
        self, model: DiTConfig, encoder: EncoderSpec, objective: Objective, task: TaskSpec
    ) -> None:
        """Refuse a training that cannot begin here, or would not be honest.

        Raises:
            ConfigError: model, encoder or objective differ, or the task holds out combinations
                that the weights have been trained on.
        """
        source = self.checkpoint
        # No weight depends on the number of tokens: they are told apart by their vectors alone.
        for part, theirs, ours in (
            ("model", asdict(source.model), asdict(model)),
            ("encoder", asdict(source.encoder), asdict(encoder)),
            ("training", {"objective": source.objective}, {"objective": objective}),
        ):
            for field, value in theirs.items():
                if field != "text_length" and value != ours[field]:
                    raise ConfigError(
                        f"cannot start from {self.name}: its {part} has {field} "
                        f"{one_line(str(value), 80)}, this one {one_line(str(ours[field]), 80)}"
                    )
        seen = held_out_combinations(task) - held_out_combinations(source.task)
        if seen:
            raise ConfigError(
                f"cannot start from {self.name}: it was trained on {len(seen)} combinations that "
                f"this task holds out; its held_out_seed is {source.task.held_out_seed}"
            )

    def weights(self, fresh: DiT) -> dict[str, Tensor]:
        """The weights to begin with.

        The null condition has a fixed random vector per token; tokens that the source does not
        have keep the fresh model's.

        Raises:
            CheckpointError: a weight is not finite.
        """
        weights = dict(self.checkpoint.build().state_dict())
        null, known = fresh.null_embedding, weights["null_embedding"]
        weights["null_embedding"] = torch.cat([known, null[len(known) :]])[: len(null)]
        return weights
