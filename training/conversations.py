"""Conversations: follow-up questions, several pictures in one or several messages, talk without a picture.

A `Dialogue` is a common prefix (system prompt, complete turns, pictures at the start of the next message) with several
independent continuations, its `branches`: packed after one prefix, they share the cost of its pictures.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace

from training.language import (
    DESCRIBE_DEFAULT,
    MAKERS,
    ORDINALS,
    Exchange,
    ask,
    contents,
    description,
    is_named,
    names,
)
from training.scenes import COLOURS, KINDS, Scene, sample_scene
from training.wording import article, capitalized, expand, vary

Part = str | int  # text, or the index of a picture
_MORE_SYSTEM_TEXTS = (
    "", "", "", "You are a helpful assistant.", "Answer briefly.", "You describe pictures.", "Be kind and precise.",
    "You are a robot with eyes. Tell the truth.", "Answer in English.",
)  # fmt: skip
SMALL_TALK: tuple[tuple[str, str], ...] = (
    ("[Hello|Hi|Hey|Good morning|Good evening][!|.|] [How are you?|]", "Hello! Show me a picture."),
    ("[Who|What] are you?", "I am a tiny model. I know drawn shapes and numbers."),
    ("What can you do?", "I am a tiny model. I know drawn shapes and numbers."),
    ("[What is your name?|What's your name?|Your name?]", "I am a tiny model. I know drawn shapes and numbers."),
    ("[Thanks|Thank you|Thanks a lot][!|.|]", "You are welcome."),
    ("[Bye|Goodbye|See you][!|.|]", "Goodbye!"),
    ("[Tell me a [story|joke].|Sing a song.|What is the capital of France?|Write a poem.|What time is it?|Help me.]",
     "I only know drawn shapes and numbers."),
)  # fmt: skip
NO_PICTURE = "There is no picture."


@dataclass(frozen=True)
class Turn:
    """A user message, with texts and pictures in order, and its answer."""

    parts: tuple[Part, ...]
    answer: str
    skill: str


@dataclass(frozen=True)
class Dialogue:
    """`head`: the initial parts of the message that every branch continues. `system`: None for the default."""

    scenes: tuple[Scene, ...]
    trunk: tuple[Turn, ...] = ()
    head: tuple[Part, ...] = ()
    branches: tuple[tuple[Turn, ...], ...] = field(default=())
    system: str | None = None


def follow_up(scene: Scene, last: Exchange, rng: random.Random) -> Exchange | None:
    """Return a question that refers to the previous one: to `it`, or to what was asked."""
    ground = rng.choice(("And the background?", "And its background?", "What about the background?"))
    options = [Exchange("followup", ground, f"{capitalized(scene.background)}.")]
    if last.about is not None:
        shape = scene.shapes[last.about]
        it: list[tuple[str, str]] = []
        if last.skill != "colour":
            template = (
                "[What colour is it?|[What|Which] colour?|And its colour?|Which colour does it have?|"
                "And what colour is it?]"
            )
            it.append((template, shape.colour))
        if last.skill != "place" and shape.slot is not None:
            it.append(
                ("[Where is it?|And where is it?|Where?|Where is that?|And where?|In which place is it?]", shape.slot)
            )
        if last.skill != "kind":
            it.append(
                (
                    "[What shape is it?|[What|Which] shape?|And its shape?|What kind of shape is it?]",
                    article(shape.kind),
                )
            )
        options += [Exchange("followup", expand(q, rng), f"{capitalized(a)}.", last.about) for q, a in it]
    if scene.number is not None and last.skill in ("describe", "number", "presence") and last.answer != "No.":
        question = expand("[What colour is it?|What colour?|And its colour?|In which colour?]", rng)
        options.append(Exchange("followup", question, f"{capitalized(scene.number.colour)}."))
    options += _same_of_another(scene, last, rng) * 2
    return rng.choice(options)


def _same_of_another(scene: Scene, last: Exchange, rng: random.Random) -> list[Exchange]:
    """Return the same question about another object: `And the square?`"""
    lead = "[And the|What about the|How about the|And what about the|and the|Then the]"
    result = []
    for index, shape in enumerate(scene.shapes):
        if index == last.about:
            continue
        if last.skill == "colour" and shape.kind in names(scene, index):
            result.append((f"{lead} {shape.kind}?", shape.colour, index))
        if last.skill == "place" and shape.slot is not None:
            result.append((f"{lead} {rng.choice(names(scene, index))}?", shape.slot, index))
        if last.skill == "kind" and f"{shape.colour} one" in names(scene, index):
            result.append((f"{lead} {shape.colour} one?", article(shape.kind), index))
    exchanges = [Exchange("followup", expand(q, rng), f"{capitalized(a)}.", about) for q, a, about in result]
    if last.skill == "presence" and last.about is None and "number" not in last.question:
        name = rng.choice([s.kind for s in scene.shapes] or list(KINDS)) if rng.random() < 0.5 else rng.choice(KINDS)
        found = any(is_named(shape, name) for shape in scene.shapes)
        question = expand(f"[And|What about|How about|Or|and] {article(name)}?", rng)
        exchanges.append(Exchange("followup", question, "Yes." if found else "No."))
    return exchanges


def _branch(scene: Scene, rng: random.Random, drill: bool = False) -> tuple[Turn, ...]:
    """Return one to three turns about the latest picture."""
    last = (Exchange("describe", DESCRIBE_DEFAULT, description(scene), 0 if len(scene.shapes) == 1 else None)
                     if rng.random() < 0.06 else ask(scene, rng, drill))  # fmt: skip
    turns = [Turn((vary(last.question, rng),), last.answer, last.skill)]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        following = follow_up(scene, last, rng) if rng.random() < 0.75 else ask(scene, rng, drill)
        if following is None:
            break
        if rng.random() < 0.04:
            turns.append(Turn((expand(SMALL_TALK[4][0], rng),), SMALL_TALK[4][1], "talk"))
        turns.append(Turn((vary(following.question, rng),), following.answer, following.skill))
        # Only plain skills can be followed up again; a follow-up keeps the referent but not the question.
        last = following
    return tuple(turns)


def _tied(rng: random.Random, first: Scene) -> Scene:
    """Return a second picture: unrelated, with the same contents on another background, or with a similar shape."""
    second = sample_scene(rng)
    roll = rng.random()
    if roll < 0.12 and all(shape.colour != second.background for shape in first.shapes) and first.number is None:
        return replace(first, background=second.background, background_rgb=second.background_rgb)
    if roll < 0.35 and first.shapes and second.shapes:
        source, target = rng.choice(first.shapes), second.shapes[0]
        looks = [(shape.colour, shape.kind) for shape in second.shapes[1:]]
        if source.colour != second.background and (source.colour, source.kind) not in looks:
            alike = replace(target, kind=source.kind, colour=source.colour, rgb=source.rgb)
            return replace(second, shapes=(alike, *second.shapes[1:]))
    return second


def sample_pair(rng: random.Random) -> tuple[Scene, Scene]:
    """Return two pictures to compare, of one or two shapes or a number each, often with something in common."""
    while True:
        first = sample_scene(rng)
        second = _tied(rng, first)
        if max(len(first.shapes), len(second.shapes)) < 3:
            return first, second


def summary(scenes: tuple[Scene, ...]) -> str:
    """Describe all pictures: `The first shows a red circle, the second a blue square.`"""
    parts = [f"the {ORDINALS[i]}{' shows' if i == 0 else ''} {contents(scene)}" for i, scene in enumerate(scenes)]
    return capitalized(", ".join(parts)) + "."


def difference(first: Scene, second: Scene) -> str:
    """Describe how two pictures differ; their backgrounds only if the contents are the same."""
    if contents(first) != contents(second):
        return summary((first, second))
    if first.background != second.background:
        return f"The first has {article(first.background)} background, the second {article(second.background)} one."
    return "They show the same."


def ask_difference(scenes: tuple[Scene, ...], rng: random.Random) -> Exchange:
    """Ask for the difference between the first two pictures."""
    template = (
        "[What is the difference[ between the [two|pictures|two pictures|images]|]?|[What|How] [do they differ|are "
        "they "
        "different|is different]?|Compare [them|the pictures|the two pictures|both].|What are the differences?|What "
        "changed"
        "?|What differs?|Tell me the difference.|How do the [two |]pictures differ?|Spot the difference.]"
    )
    return Exchange("difference", expand(template, rng), difference(scenes[0], scenes[1]))


def ask_which(scenes: tuple[Scene, ...], rng: random.Random) -> Exchange:
    """Ask which picture contains an object; of three pictures, exactly one does."""
    template = (
        "[[Which|What] picture [has|shows|contains] {a}?|In which picture is [there |]{a}?|Which [one|of them|of the "
        "pictures] [has|shows] {a}?|Where is there {a}?|Which one is the one with {a}?|Which picture is it that has "
        "{a}?]"
    )
    for _ in range(20):
        if rng.random() < 0.85:
            scene = rng.choice(scenes)
            shape = rng.choice(scene.shapes) if scene.shapes else None
            name = "number" if shape is None else rng.choice((shape.kind, f"{shape.colour} {shape.kind}", shape.kind))
        else:
            name = rng.choice((rng.choice(KINDS), f"{rng.choice(list(COLOURS))} {rng.choice(KINDS)}"))
        found = [scene.number is not None if name == "number" else any(is_named(s, name) for s in scene.shapes)
                 for scene in scenes]  # fmt: skip
        if len(scenes) == 2:
            answer = "Both" if all(found) else f"The {ORDINALS[found.index(True)]}" if any(found) else "Neither"
        elif sum(found) == 1:
            answer = f"The {ORDINALS[found.index(True)]}"
        else:
            continue
        return Exchange("which", expand(template.replace("{a}", article(name)), rng), f"{answer}.")
    return ask_recall(scenes, rng)  # with three numbers, for example, no object is in exactly one picture


def ask_recall(scenes: tuple[Scene, ...], rng: random.Random) -> Exchange:
    """Ask about one of several pictures, by its ordinal."""
    index = rng.randrange(len(scenes))
    scene, ordinal = scenes[index], ORDINALS[index]
    if index == len(scenes) - 1 and rng.random() < 0.2:
        ordinal = "last"
    if rng.random() < 0.45:
        template = (
            "[What [was|is] in the {o} picture?|Describe the {o} picture.|What [does|did] the {o} [one|picture] "
            "show?|What "
            "did you see in the {o} picture?|And the {o} picture?|The {o} picture?|What about the {o} one?|Tell me "
            "about "
            "the {o} [one|picture].|Describe the {o} one.]"
        )
        return Exchange("recall", expand(template.replace("{o}", ordinal), rng), description(scene))
    while True:
        skill = rng.choice(("colour", "kind", "place", "background", "count", "presence", "number"))
        found = MAKERS[skill][1](scene, rng)
        if found is not None and found.skill != "absent":
            break
    question, changed = re.subn(r"\b(the|this|my) picture\b", f"the {ordinal} picture", found.question)
    if not changed:
        question = re.sub(r"([?.]?)$", rf" in the {ordinal} picture\1", found.question, count=1)
    return Exchange("recall", question, found.answer, None)


def _about_several(
    scenes: tuple[Scene, ...], rng: random.Random, newest_alone: bool, drill: bool = False
) -> tuple[Turn, ...]:
    """Return one or two turns about several pictures, or about the latest if it was sent on its own."""
    turns: list[Turn] = []
    for _ in range(rng.choice((1, 1, 2))):
        roll = rng.random()
        if roll < (0.1 if drill else 0.15):
            if newest_alone:
                return (*turns, *_branch(scenes[-1], rng, drill))
            template = (
                "[Describe [the|these|both|all] pictures.|Describe them.|What do you see?|What do the pictures show?|"
            )
            template += f"{DESCRIBE_DEFAULT}|What is in the pictures?|Describe [each|both].|What are these?|]"
            exchange = Exchange("describe_all", expand(template, rng), summary(scenes))
        elif roll < (0.35 if drill else 0.4) and len(scenes) == 2:
            exchange = ask_difference(scenes, rng)
        elif roll < (0.68 if drill else 0.7):
            exchange = ask_which(scenes, rng)
        else:
            exchange = ask_recall(scenes, rng)
        turns.append(Turn((vary(exchange.question, rng),), exchange.answer, exchange.skill))
    return tuple(turns)


def inline_question(scenes: tuple[Scene, ...], rng: random.Random) -> Turn:
    """Return a question with both pictures within its text."""
    before, between, after, skill = rng.choice((
        ("What is the difference between ", " and ", "?", "difference"), ("Compare ", " and ", ".", "difference"),
        ("Compare ", " with ", ".", "difference"), ("How does ", " differ from ", "?", "difference"),
        ("What do ", " and ", " show?", "describe_all"), ("Describe ", " and ", ".", "describe_all"),
        ("Here is ", " and here ", ". What do you see?", "describe_all"),
    ))  # fmt: skip
    answer = difference(scenes[0], scenes[1]) if skill == "difference" else summary(scenes[:2])
    return Turn((before, 0, between, 1, after), answer, skill)


def _drilled_scene(rng: random.Random) -> Scene:
    """Return a scene, less often with a single shape, for which the name in a question does not matter."""
    return sample_scene(rng, number=True) if rng.random() < 0.25 else sample_scene(rng, rng.choice((1, 2, 2, 3, 3)))


def sample_dialogue(rng: random.Random, branches: int, several: float = 0.35, drill: bool = False) -> Dialogue:
    """Return a conversation with about `branches` continuations, and with probability `several`, several pictures."""
    system = rng.choice(_MORE_SYSTEM_TEXTS) if rng.random() < 0.12 else None
    roll = rng.random()
    if roll < 0.01:
        return Dialogue((), branches=tuple(_without_picture(rng) for _ in range(branches)), system=system)
    first = _drilled_scene(rng) if drill else sample_scene(rng)
    if roll < 1 - several:
        if rng.random() < 0.06:  # the question before its picture
            few = [_branch(first, rng, drill) for _ in range(max(1, branches // 4))]
            moved = tuple((replace(b[0], parts=(*b[0].parts, rng.choice(("", " ", "\n")), 0)), *b[1:]) for b in few)
            return Dialogue((first,), branches=moved, system=system)
        head: tuple[Part, ...] = (0,) if rng.random() < 0.9 else (0, rng.choice((" ", "\n")))
        return Dialogue(
            (first,), head=head, branches=tuple(_branch(first, rng, drill) for _ in range(branches)), system=system
        )
    scenes: tuple[Scene, ...] = (first, _tied(rng, first))
    if rng.random() < 0.15:
        scenes = (*scenes, sample_scene(rng))
    many = tuple(range(len(scenes)))
    style = rng.random()
    if style < 0.45:  # all in one message
        joints = rng.choice(
            (None, None, None, ("", " ", " "), ("First: ", " Second: ", " Third: "), ("1: ", " 2: ", " 3: "))
        )
        head = many if joints is None else tuple(part for i in many for part in (joints[i], i))
        return Dialogue(
            scenes, (), head, tuple(_about_several(scenes, rng, False, drill) for _ in range(branches)), system
        )
    if style < 0.6:
        trunk: tuple[Turn, ...] = (inline_question(scenes, rng),)
        scenes = scenes[:2]
        return Dialogue(
            scenes, trunk, (), tuple(_about_several(scenes, rng, False, drill) for _ in range(branches)), system
        )
    turns: list[Turn] = []
    for index in many:
        opening = _branch(scenes[index], rng)[: rng.choice((1, 1, 2))]
        turns += [replace(opening[0], parts=(index, *opening[0].parts)), *opening[1:]]
    if style < 0.8:  # the last picture opens the branches' message
        turns = turns[: max(i for i, turn in enumerate(turns) if isinstance(turn.parts[0], int))]
        return Dialogue(
            scenes,
            tuple(turns),
            many[-1:],
            tuple(_about_several(scenes, rng, True, drill) for _ in range(branches)),
            system,
        )
    return Dialogue(
        scenes, tuple(turns), (), tuple(_about_several(scenes, rng, True, drill) for _ in range(branches)), system
    )


def sample_long_dialogue(rng: random.Random, branches: int, drill: bool = False) -> Dialogue:
    """Return a long conversation: two to five pictures in separate messages, with several turns about each."""
    scenes = [sample_scene(rng)]
    for _ in range(rng.choice((1, 2, 3, 4))):
        scenes.append(_tied(rng, scenes[-1]))
    turns: list[Turn] = []
    for index, scene in enumerate(scenes):
        opening = [turn for _ in range(rng.randint(1, 3)) for turn in _branch(scene, rng)][: rng.randint(1, 6)]
        turns += [replace(opening[0], parts=(index, *opening[0].parts)), *opening[1:]]
    system = rng.choice(_MORE_SYSTEM_TEXTS) if rng.random() < 0.12 else None
    return Dialogue(
        tuple(scenes),
        tuple(turns),
        (),
        tuple(_about_several(tuple(scenes), rng, True, drill) for _ in range(branches)),
        system,
    )


def _without_picture(rng: random.Random) -> tuple[Turn, ...]:
    if rng.random() < 0.5:
        question = ask(sample_scene(rng), rng).question or DESCRIBE_DEFAULT
        return (Turn((vary(question, rng),), NO_PICTURE, "talk"),)
    template, answer = rng.choice(SMALL_TALK)
    return (Turn((expand(template, rng),), answer, "talk"),)
