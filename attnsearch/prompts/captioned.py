"""The captions of the two-object task as prompts, so that both go one way."""

from attnsearch.prompts.prompt import FILLER, Prompt, Span
from attnsearch.task.captions import Caption
from attnsearch.task.spec import OBJECT_PAIRS


def prompt_of_caption(caption: Caption) -> Prompt:
    """The same text and roles; as attributes the relation, its words, colours and shapes.

    A colour that the caption does not name is empty.
    """
    spans: dict[str, list[Span]] = {}
    start = 0
    for word, role in zip(caption.words, caption.roles, strict=True):
        if role != FILLER:
            spans.setdefault(role, []).append((start, start + len(word)))
        start += len(word) + 1
    attributes = {
        "relation": caption.relation,
        "relation_words": " ".join(caption.direction_words),
    }
    for index, (colour, shape) in enumerate(OBJECT_PAIRS[caption.pair]):
        attributes[f"colour{index + 1}"] = colour if caption.colours_named[index] else ""
        attributes[f"shape{index + 1}"] = shape
    return Prompt(
        text=caption.text,
        spans={role: tuple(places) for role, places in spans.items()},
        attributes=attributes,
    )
