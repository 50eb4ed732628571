"""Questions about a picture, in many wordings, and their answers.

Templates are those of `training.wording`, after placeholders such as `{thing}` are filled in. Answers are short and
canonical, which makes exact match a fair metric.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.scenes import COLOURS, KINDS, SLOTS, Scene, Shape
from training.wording import article, capitalized, expand, in_place, joined

COUNT_WORDS = ("None", "One", "Two", "Three")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
DESCRIBE_DEFAULT = "Describe this image."
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Exchange:
    """A question and its answer. `skill`: the skill that it tests. `about`: the index of the shape that it is about."""

    skill: str
    question: str
    answer: str
    about: int | None = None


def contents(scene: Scene) -> str:
    """Name the contents of a picture without the background: `a red circle and a blue square`, `the number 42`."""
    if scene.number is not None:
        return f"the number {scene.number.text}"
    return joined([article(f"{shape.colour} {shape.kind}") for shape in scene.shapes])


def description(scene: Scene) -> str:
    """Return the answer to `Describe this image.`"""
    colour = f" in {scene.number.colour}" if scene.number is not None else ""
    return capitalized(f"{contents(scene)}{colour} on {article(scene.background)} background.")


def names(scene: Scene, index: int) -> list[str]:
    """Return the unambiguous names of a shape, shortest first: its kind, its colour, both."""
    shape = scene.shapes[index]
    result = []
    if sum(other.kind == shape.kind for other in scene.shapes) == 1:
        result.append(shape.kind)
    if sum(other.colour == shape.colour for other in scene.shapes) == 1:
        result.append(f"{shape.colour} one")
    return [*result, f"{shape.colour} {shape.kind}"]


def is_named(shape: Shape, name: str) -> bool:
    """Whether a name (`red circle`, `circle`, `red one`) matches the shape."""
    *colour, kind = name.split(" ")
    return kind in (shape.kind, "one") and (not colour or colour[0] == shape.colour)


def _absent_name(scene: Scene, rng: random.Random) -> str:
    """Return a kind, with or without a colour, that is not in the scene, though its words often are."""
    while True:
        colours = [shape.colour for shape in scene.shapes] if rng.random() < 0.6 else list(_COLOUR_NAMES)
        kinds = [shape.kind for shape in scene.shapes] if rng.random() < 0.6 else list(KINDS)
        colour, kind = rng.choice(colours or list(_COLOUR_NAMES)), rng.choice(kinds or list(KINDS))
        name = rng.choice((kind, f"{colour} {kind}"))
        if not any(is_named(shape, name) for shape in scene.shapes):
            return name


def _describe(scene: Scene, rng: random.Random) -> Exchange:
    template = (
        "[Describe [this|the|my] picture.|Describe this image.|What [is|do you see|can you see|is shown] in [this|the] "
        "picture?|What's in [this|the] picture?|What does [this|the] picture show?|What is this?|What can you see?|"
        "What do you see?|Describe what you see.|[Caption|Explain] [this|the] picture.|Write a caption.|Tell me what "
        "you "
        "see.|[Give|Write] [me |]a [short |]description.|Tell me about [this|the] picture.|What is shown?|Describe it.|"
        "Describe.|What is there?|What have we here?|Summarize the picture.|What objects are in the picture?|"
        "What is in it?|Look at [this|the] picture and tell me what it shows.|]"
    )
    return Exchange("describe", expand(template, rng), description(scene), 0 if len(scene.shapes) == 1 else None)


def _detail(scene: Scene, rng: random.Random) -> Exchange | None:
    template = (
        "[Describe [this|the] picture in [detail|full|depth].|Give me a [detailed|long|full] description.|Give all the "
        "details.|Tell me everything about [this|the] picture.|Write a long description of the picture.]"
    )
    parts = [f"The background is {scene.background}."]
    if scene.number is not None:
        parts.append(f"The number {scene.number.text} is drawn in {scene.number.colour}.")
    for shape in scene.shapes:
        if shape.slot is None:
            return None
        parts.append(f"There is {article(f'{shape.colour} {shape.kind}')} {in_place(shape.slot)}.")
    return Exchange("detail", expand(template, rng), " ".join(parts))


def _list(scene: Scene, rng: random.Random) -> Exchange:
    template = (
        "[[List|Name] [all |][the|its] [objects|things|shapes|contents].|[Make|Write|Give me] a list [of the "
        "objects|of the "
        "shapes|].|List what you see.|List everything.|Which objects are there?]"
    )
    things = [contents(scene)] if scene.number else [article(f"{s.colour} {s.kind}") for s in scene.shapes]
    return Exchange("list", expand(template, rng), "\n".join(f"- {thing}" for thing in things))


def _colour(scene: Scene, rng: random.Random) -> Exchange | None:
    template = (
        "[[What|Which] colour is the {thing}?|What is the colour of the {thing}?|[Which|What] colour does the "
        "{thing} have?|"
        "[Tell me|Name|Say] the colour of the {thing}.|The {thing}: what colour is it?|What's the {thing}'s colour?|"
        "What colour has the {thing}?|Colour of the {thing}?|What colour is the {thing}[ in the picture| here|]?|"
        "In which colour is the {thing} drawn?|Which colour is used for the {thing}?|How is the {thing} coloured?]"
    )
    if scene.number is not None:
        thing = rng.choice(("number", "number", "digits", "text"))
        question = expand(template.replace("{thing}", thing), rng)
        if thing == "digits":
            question = question.replace("is the digits", "are the digits").replace("does the", "do the")
        return Exchange("colour", question, f"{capitalized(scene.number.colour)}.")
    if rng.random() < 0.12:
        kind = rng.choice(KINDS)
        if all(shape.kind != kind for shape in scene.shapes):
            return Exchange("absent", expand(template.replace("{thing}", kind), rng), f"There is no {kind}.")
    unique = [i for i in range(len(scene.shapes)) if scene.shapes[i].kind in names(scene, i)]
    if not unique:
        return None
    index = rng.choice(unique)
    shape = scene.shapes[index]
    thing = (
        rng.choice(("shape", "object", "thing", "figure"))
        if len(scene.shapes) == 1 and rng.random() < 0.25
        else shape.kind
    )
    return Exchange("colour", expand(template.replace("{thing}", thing), rng), f"{capitalized(shape.colour)}.", index)


def _kind(scene: Scene, rng: random.Random) -> Exchange | None:
    named = (
        "[[What|Which] [shape|kind of shape|object|figure] is the {colour} [one|object|thing|shape]?|What is the "
        "{colour} "
        "[thing|object|shape|one]?|[Which|What] [shape|object|thing] is {colour}?|What is {colour}?|What shape does "
        "the "
        "{colour} [object|thing|one] have?|[Name|Tell me] the {colour} [shape|object].|The {colour} one: what is it?|"
        "What is drawn in {colour}?|What kind of [shape|thing|object] is the {colour} one?|What {colour} [shape|thing|"
        "object] is there?|What is the shape of the {colour} [object|thing|one]?]"
    )
    single = (
        "[What shape is [this|it|that|shown|in the picture]?|[Which|What] shape do you see?|What is the shape?|What "
        "kind of "
        "shape is [this|it]?|Name the shape.|Which shape is [shown|drawn|it]?|What figure is this?]"
    )
    if rng.random() < 0.12:
        colour = rng.choice(_COLOUR_NAMES)
        if colour != scene.background and all(shape.colour != colour for shape in scene.shapes) and not scene.number:
            return Exchange("absent", expand(named.replace("{colour}", colour), rng), f"There is nothing {colour}.")
    unique = [i for i in range(len(scene.shapes)) if f"{scene.shapes[i].colour} one" in names(scene, i)]
    if not unique:
        return None
    index = rng.choice(unique)
    shape = scene.shapes[index]
    template = single if len(scene.shapes) == 1 and rng.random() < 0.4 else named
    question = expand(template.replace("{colour}", shape.colour), rng)
    return Exchange("kind", question, f"{capitalized(article(shape.kind))}.", index)


def _place(scene: Scene, rng: random.Random) -> Exchange | None:
    template = (
        "[Where is the {thing}?|Where [is the {thing} in the picture|in the picture is the {thing}]?|In [which|what] "
        "[part|"
        "corner|place|area] [of the picture |]is the {thing}?|What is the [position|place|location] of the "
        "{thing}?|Where "
        "[can|do] I [find|see] the {thing}?|Tell me where the {thing} is.|Where do you see the {thing}?|Find the "
        "{thing}.|"
        "Where has the {thing} been drawn?|Locate the {thing}.|Where's the {thing}?]"
    )
    if rng.random() < 0.12:
        name = _absent_name(scene, rng)
        return Exchange("absent", expand(template.replace("{thing}", name), rng), f"There is no {name}.")
    clear = [i for i, shape in enumerate(scene.shapes) if shape.slot is not None]
    if not clear:
        return None
    index = rng.choice(clear)
    choices = names(scene, index)
    if len(scene.shapes) == 1 and rng.random() < 0.3:
        choices = ["shape", "object", "thing", "figure"]
    thing = rng.choice(choices)
    return Exchange(
        "place",
        expand(template.replace("{thing}", thing), rng),
        f"{capitalized(scene.shapes[index].slot or '')}.",
        index,
    )


def _what_at(scene: Scene, rng: random.Random) -> Exchange | None:
    """Ask what is at a position: within a row or stack of several shapes, or in a slot for a single one."""
    template = (
        "[What [is|do you see|is drawn|is there] {place}?|Which [object|shape|thing] is {place}?|What's {place}?|"
        "Name the [object|shape] {place}.]"
    )
    shapes = scene.shapes
    if not shapes:
        return None
    if len(shapes) == 1:
        slot = shapes[0].slot
        if slot is None:
            return None
        asked = slot if rng.random() < 0.6 else rng.choice([s for s in SLOTS if not set(s.split()) & set(slot.split())])
        answer = article(f"{shapes[0].colour} {shapes[0].kind}") if asked == slot else "nothing"
        return Exchange(
            "what_at", expand(template.replace("{place}", in_place(asked)), rng), capitalized(answer) + ".", None
        )
    ends = (
        ("at the top", "in the middle", "at the bottom")
        if scene.stacked
        else ("on the left", "in the middle", "on the right")
    )
    choices = {0: ends[0], len(shapes) - 1: ends[2]} | ({1: ends[1]} if len(shapes) == 3 else {})
    index = rng.choice(list(choices))
    shape = shapes[index]
    question = expand(template.replace("{place}", choices[index]), rng)
    return Exchange("what_at", question, capitalized(article(f"{shape.colour} {shape.kind}")) + ".", index)


def _background(scene: Scene, rng: random.Random) -> Exchange:
    template = (
        "[[What|Which] colour is the [background|ground]?|What is the [background|ground]?|What is the [background "
        "colour|"
        "colour of the [background|ground]]?|What's the background[ colour|]?|[Tell me|Name] the [background "
        "colour|colour "
        "of the background].|[What|Which] colour is [behind it|in the background]?|On what background is "
        "it?|Background "
        "colour?|[What|Which] colour does the background have?|And the background?|What is behind [it|the shapes]?]"
    )
    return Exchange("background", expand(template, rng), f"{capitalized(scene.background)}.")


def _count(scene: Scene, rng: random.Random) -> Exchange:
    template = (
        "[How many {things} [are there|are in the picture|do you see|can you see|are shown|does the picture "
        "show|]?|Count the "
        "{things}.|What is the number of {things}?|How many {things} [are drawn|has the picture|are here]?|Tell me "
        "how many "
        "{things} there are.]"
    )
    if scene.number is not None and rng.random() < 0.7:
        things, count = "digits", len(scene.number.text)
    elif scene.number is None and rng.random() < 0.6:
        things, count = rng.choice(("objects", "shapes", "things", "figures")), len(scene.shapes)
    else:
        present = rng.random() < 0.75
        if rng.random() < 0.6:
            kind = rng.choice([s.kind for s in scene.shapes] if present and scene.shapes else list(KINDS))
            things, count = f"{'crosse' if kind == 'cross' else kind}s", sum(s.kind == kind for s in scene.shapes)
        else:
            colour = rng.choice([s.colour for s in scene.shapes] if present and scene.shapes else list(_COLOUR_NAMES))
            things, count = f"{colour} [objects|shapes|things]", sum(s.colour == colour for s in scene.shapes)
    return Exchange("count", expand(template.replace("{things}", things), rng), f"{COUNT_WORDS[count]}.")


def _presence(scene: Scene, rng: random.Random) -> Exchange:
    template = (
        "[Is there [{a}|any {thing}|{a}][ in the picture| here|]?|[Do|Can] you see {a}?|Does [the|this] picture "
        "[show|contain|"
        "have] {a}?|Is {a} [in the picture|there|shown|visible|present]?|Can {a} be seen?|Is there {a} or not?]"
    )
    if scene.number is not None and rng.random() < 0.4:
        return Exchange(
            "presence", expand(template.replace("{a}", "a number").replace("{thing}", "number"), rng), "Yes."
        )
    if scene.number is None and rng.random() < 0.06:
        return Exchange(
            "presence", expand(template.replace("{a}", "a number").replace("{thing}", "number"), rng), "No."
        )
    if len(scene.shapes) and rng.random() < 0.2:
        index = rng.randrange(len(scene.shapes))
        shape = scene.shapes[index]
        true = rng.random() < 0.5
        thing = "it" if len(scene.shapes) == 1 and rng.random() < 0.4 else f"the {shape.kind}"
        if thing == "it" and rng.random() < 0.5:
            kind = shape.kind if true else rng.choice([k for k in KINDS if k != shape.kind])
            return Exchange("presence", f"Is it {article(kind)}?", "Yes." if true else "No.", index)
        if thing == "it" or shape.kind in names(scene, index):
            colour = shape.colour if true else rng.choice([c for c in _COLOUR_NAMES if c != shape.colour])
            return Exchange("presence", f"Is {thing} {colour}?", "Yes." if true else "No.", index)
    if scene.shapes and rng.random() < 0.5:
        shape = rng.choice(scene.shapes)
        name, answer = rng.choice((shape.kind, f"{shape.colour} {shape.kind}")), "Yes."
    else:
        name, answer = _absent_name(scene, rng), "No."
    return Exchange("presence", expand(template.replace("{a}", article(name)).replace("{thing}", name), rng), answer)


def _number(scene: Scene, rng: random.Random) -> Exchange | None:
    template = (
        "[[What|Which] number is [this|shown|it|in the picture|written|drawn|there]?|[What|Which] number do you "
        "see?|[Read|"
        "Tell me|Say|Name] the number.|What does it say?|What is written [here|there|in the picture|]?|Read [the "
        "text|it|"
        "this].|What is the number?|What are the digits?|What does the picture say?|What number does the picture show?|"
        "What text is [in the picture|there]?|Transcribe the [number|text].|Which digits do you see?]"
    )
    if scene.number is None:
        return Exchange("absent", expand(template, rng), "There is no number.") if rng.random() < 0.1 else None
    text = scene.number.text
    if len(text) > 1 and rng.random() < 0.12:
        which, digit = rng.choice((("first", text[0]), ("last", text[-1])))
        return Exchange("digit", f"What is the {which} digit?", f"{digit}.")
    return Exchange("number", expand(template, rng), f"{text}.")


Maker = Callable[[Scene, random.Random], Exchange | None]
MAKERS: dict[str, tuple[float, Maker]] = {
    "describe": (1.6, _describe),
    "detail": (0.4, _detail),
    "list": (0.3, _list),
    "colour": (1.6, _colour),
    "kind": (1.4, _kind),
    "place": (1.6, _place),
    "what_at": (0.8, _what_at),
    "background": (0.7, _background),
    "count": (1.0, _count),
    "presence": (2.0, _presence),
    "number": (2.0, _number),
}


# Weights of the second stage, with emphasis on what is learnt last: looking up by name whether and where something is.
DRILL: dict[str, float] = {
    "describe": 3.5, "detail": 1.2, "list": 0.8, "colour": 2.5, "kind": 1.2, "place": 2.0, "what_at": 1.5,
    "background": 0.4, "count": 2.0, "presence": 4.0, "number": 4.0,
}  # fmt: skip


def ask_each(scene: Scene, rng: random.Random) -> Exchange | None:
    """Ask for an attribute of every shape: `circle red, square blue`.

    Descriptions (`a red circle`) train looking up a kind by its colour; this trains looking up a colour by its kind,
    and a place by either. None if the names are ambiguous.
    """
    shapes = scene.shapes
    by_kind = len({shape.kind for shape in shapes}) == len(shapes)
    by_colour = len({shape.colour for shape in shapes}) == len(shapes)
    placed = all(shape.slot for shape in shapes)
    options: list[tuple[str, list[str]]] = []
    if by_kind:
        question = "[[What|Which] colour is each shape?|Name the colour of each shape.|The colours of the shapes?]"
        options.append((question, [f"{shape.kind} {shape.colour}" for shape in shapes]))
    if by_kind and placed:
        question = "[Where is each shape?|Name the place of each shape.|The places of the shapes?]"
        options.append((question, [f"{shape.kind} {shape.slot}" for shape in shapes]))
    if by_colour and placed:
        question = "[Where is each colour?|Name the place of each colour.|The places of the colours?]"
        options.append((question, [f"{shape.colour} {shape.slot}" for shape in shapes]))
    if not shapes or not options:
        return None
    question, parts = rng.choice(options)
    rng.shuffle(parts)
    return Exchange("each", expand(question, rng), ", ".join(parts))


def ask(scene: Scene, rng: random.Random, drill: bool = False) -> Exchange:
    """Return a question about the scene, of a skill sampled by weight, before varying its wording."""
    if drill and rng.random() < 0.04 and (each := ask_each(scene, rng)) is not None:
        return each
    weights = list(DRILL.values()) if drill else [weight for weight, _ in MAKERS.values()]
    while True:
        name = rng.choices(list(MAKERS), weights)[0]
        exchange = MAKERS[name][1](scene, rng)
        if exchange is not None:
            return exchange
