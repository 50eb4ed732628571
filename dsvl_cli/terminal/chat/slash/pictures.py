"""Commands on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError, UsageError
from dsvl_cli.terminal.chat.attachments import split_arguments
from dsvl_cli.terminal.chat.slash.command import SlashCommand, offer_numbers, read_number
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsvl_cli.engine.conversation import Picture
    from dsvl_cli.terminal.chat.chat import Chat


_ALL, _STAGED = "all", "staged"
_SETS = (_ALL, _STAGED)


def paste_image(chat: Chat, _: str) -> None:
    """Attach the picture on the clipboard."""
    chat.attach([chat.services.sources.paste()])


def add_images(chat: Chat, argument: str) -> None:
    """Attach pictures from paths, URLs or globs."""
    chat.add_images(split_arguments(argument))


def list_images(chat: Chat, _: str) -> None:
    """List all pictures: number, size, size as seen by the model, tokens, turn and name."""
    entries = chat.dialogue.pictures()
    if not entries:
        chat.tell("no pictures yet; attach one with /image")
        return
    model = chat.loading.ready
    tokens = str(model.image_tokens()) if model else "?"
    side = _side_of_view(chat, entries[0].picture)
    rows = [("no.", "size", "seen as", "tokens", "turn", "name")]
    for entry in entries:
        size = f"{entry.picture.width}x{entry.picture.height}"
        turn = "next" if entry.turn is None else str(entry.turn)
        rows.append((str(entry.number), size, seen_as(entry.picture, side), tokens, turn, entry.picture.name))
    chat.tell(*align(rows, chat.console.status_width))


def _side_of_view(chat: Chat, picture: Picture) -> int | None:
    """Return the side, in pixels, of the square image that the model sees, which is the same for all pictures."""
    try:
        return chat.loading.ready.view(picture).width if chat.loading.ready else None
    except DsvlError:
        return None


def seen_as(picture: Picture, side: int | None) -> str:
    """Format a picture's size after scaling its longer side to the model's square image."""
    if side is None:
        return "?"
    longer = max(picture.width, picture.height)
    return f"{max(1, round(picture.width * side / longer))}x{max(1, round(picture.height * side / longer))}"


def drop_images(chat: Chat, argument: str) -> None:
    """Remove pictures, attached or sent: none if one of the numbers is wrong."""
    wanted = _which(chat, argument)
    for number in wanted:
        dropped = chat.dialogue.drop(number)
        where = "no longer attached" if dropped.turn is None else f"removed from turn {dropped.turn}"
        chat.tell(f"[{number}] {dropped.picture.name}: {where}")
    chat.save_if_begun()


def _which(chat: Chat, argument: str) -> list[int]:
    entries = chat.dialogue.pictures()
    if argument in _SETS:
        numbers = [entry.number for entry in entries if argument == _ALL or entry.turn is None]
        if not numbers:
            raise UsageError("there are no pictures" if argument == _ALL else "no picture is attached")
        return numbers
    numbers = []
    for word in argument.replace(",", " ").split():
        first, dash, last = word.partition("-")
        if first and dash and last:
            ends = read_number(first), read_number(last)
            numbers += [entry.number for entry in entries if ends[0] <= entry.number <= ends[1]] or [ends[0]]
        else:
            numbers.append(read_number(word))
    return [chat.dialogue.picture(number).number for number in dict.fromkeys(numbers)]


def offer_droppable(chat: Chat, _: str) -> Iterable[str]:
    """Offer the numbers of pictures, and the words for several."""
    return [*(str(entry.number) for entry in chat.dialogue.pictures()), *_SETS]


def see_image(chat: Chat, argument: str) -> None:
    """Show a picture as the model sees it, or write it to a file."""
    number, *rest = split_arguments(argument)
    if len(rest) > 1:
        raise UsageError("/see takes one file", "put a name with spaces in quotes")
    entry = chat.dialogue.picture(read_number(number))
    path = Path(rest[0] if rest else "")
    form = _format_of(path) if rest else ""
    image = chat.model().view(entry.picture)
    if not rest:
        from dsvl_cli.terminal.preview import show

        show(chat.console, image)
        return
    try:
        with path.open("xb") as file:
            try:
                image.save(file, format=form)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError as exc:
        raise UsageError(f"{path} already exists", "choose another name") from exc
    except OSError as exc:
        raise DsvlError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    chat.tell(f"{path}: {image.width}x{image.height}, as the model sees it")


def _format_of(path: Path) -> str:
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}
    try:
        return formats[path.suffix.lower()]
    except KeyError as exc:
        raise UsageError(f"{path.name} does not have an image extension", "use a name ending in .png") from exc


def crop_image(chat: Chat, argument: str) -> None:
    """Attach a region of a picture at full resolution."""
    number, _, region = argument.partition(" ")
    picture = chat.dialogue.picture(read_number(number)).picture
    edges = region.replace(",", " ").split()
    if len(edges) != 4 or not all(edge.isascii() and edge.isdigit() for edge in edges):
        size = f"the picture is {picture.width}x{picture.height} pixels"
        raise UsageError(f"{region!r} is not a region", f"type x,y,width,height in pixels; {size}")
    x, y, width, height = map(int, edges)
    chat.attach([chat.services.sources.crop(picture, x, y, width, height)])


def offer_regions(chat: Chat, typed: str) -> list[str]:
    """Offer picture numbers, then the whole picture as an initial region."""
    first, space, _ = typed.partition(" ")
    if not space:
        return list(offer_numbers(chat, typed))
    sizes = {str(entry.number): entry.picture for entry in chat.dialogue.pictures()}
    picture = sizes.get(first)
    return [f"0,0,{picture.width},{picture.height}"] if picture else []


COMMANDS = (
    SlashCommand("image", "PATH|URL|GLOB...", "attach pictures to the next message", add_images),
    SlashCommand("images", "", "list the pictures and their size for the model", list_images),
    SlashCommand("paste", "", "attach the picture on the clipboard", paste_image),
    SlashCommand(
        "drop",
        "N...|all|staged",
        "remove pictures; staged are those not sent yet",
        drop_images,
        complete=offer_droppable,
    ),
    SlashCommand("see", "N [PATH]", "show or save a picture as the model sees it", see_image, complete=offer_numbers),
    SlashCommand("crop", "N x,y,w,h", "attach a region at full resolution", crop_image, complete=offer_regions),
)
