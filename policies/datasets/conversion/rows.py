"""One row of another shape → a row of ours, with what was changed on the way.

Nothing that was to be trained on is left behind: a field that may hold some of it and has no place in our rows is a
reason to refuse the row. What the result is worth is for the parser of training files to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from policies.datasets.chat_rows import KEYS as CHAT_KEYS
from policies.datasets.conversion.errors import RowNotConvertedError
from policies.datasets.conversion.tools import ANSWERS, CALLS, ToolTurns, definitions
from policies.datasets.preference_rows import KEYS, NON_PREFERRED, PREFERRED, is_preference
from policies.datasets.row_findings import Json, is_list, kind
from policies.datasets.shapes import NO_QUESTION, Shape

Row = dict[str, Json]
ROLES_OF_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
ROLES_OF_VERTEX = {"user": "user", "model": "assistant"}
CARRIERS = frozenset(
    {"tools", "functions", "tool_calls", "image", "images", "audio", "audios", "video", "videos", "context", "history"}
)
"""Fields that are part of the example, be their value only a name."""
_NOTHING: tuple[Json, ...] = (None, "", [], {})


class ConvertedRow(NamedTuple):
    """A row that is still to be checked."""

    row: Row
    changes: list[str]
    """In words that can be counted: the same change is the same text in each row."""


def convert_row(value: Json, shape: Shape | None) -> ConvertedRow:
    """The row of ours that says the same.

    Args:
        shape: what the row is read as; None for rows of ours in a container of another kind.

    Raises:
        RowNotConvertedError: it is not of that shape, or says more than a row of ours can.
    """
    if not isinstance(value, dict):
        raise RowNotConvertedError(f"the row is {kind(value)}, not an object")
    changes: list[str] = []
    unread = dict(value)
    row = _CONVERTERS[shape](unread, changes)
    _leave_out(unread, changes)
    return ConvertedRow(row, changes)


def _leave_out(unread: Row, changes: list[str]) -> None:
    for key, value in unread.items():
        name = ascii(key[:40])[1:-1]
        if value not in _NOTHING and (key in CARRIERS or isinstance(value, dict | list)):
            raise RowNotConvertedError(f"the field {name} would be lost; remove it, or write it into the texts")
        changes.append(f"field {name} left out")


def _prompt_completion(unread: Row, changes: list[str]) -> Row:
    system = _system(unread, changes)
    prompt, completion = _taken(unread, "prompt"), _taken(unread, "completion")
    if is_list(prompt) and is_list(completion):
        return {"messages": [*system, *map(_as_context, prompt), *completion]}
    question = _trimmed(_text(prompt, "prompt"), "prompts", changes)
    answer = _trimmed(_text(completion, "completion"), "completions", changes)
    return {"messages": [*system, _message("user", question), _message("assistant", answer)]}


def _as_context(message: Json) -> Json:
    is_answer = isinstance(message, dict) and message.get("role") == "assistant"
    return {**message, "weight": 0} if is_answer else message


def _alpaca(unread: Row, changes: list[str]) -> Row:
    messages = _system(unread, changes)
    for pair in _list(unread.pop("history", None) or [], "history"):
        if not is_list(pair) or len(pair) != 2:
            raise RowNotConvertedError("history is not a list of questions with their answers")
        messages += [_message("user", _text(pair[0], "history")), _message("assistant", _text(pair[1], "history"))]
    question = _text(_taken(unread, "instruction"), "instruction")
    if "input" in unread:
        given = _text(unread.pop("input") or "", "input")
        changes.append("input written below its instruction" if given.strip() else "blank input dropped")
        question = "\n\n".join(text for text in (question, given) if text.strip())
    return {"messages": [*messages, _message("user", question), _answer(unread, "output")]}


def _answer(unread: Row, key: str) -> Row:
    return _message("assistant", _text(_taken(unread, key), key))


def _sharegpt(unread: Row, changes: list[str]) -> Row:
    system = _system(unread, changes)
    turns = _list(_taken(unread, "conversations"), "conversations")
    tools = _tools(unread, changes)
    of_tools = ToolTurns()
    return {
        "messages": [*system, *(_turn(turn, f"conversations[{n}]", of_tools) for n, turn in enumerate(turns))]
    } | tools


def _tools(unread: Row, changes: list[str]) -> Row:
    """The field `tools` of a row that offers some."""
    if unread.get("tools") in (*_NOTHING, "[]"):
        return {}
    changes.append("tools written as OpenAI has them")
    return {"tools": definitions(unread.pop("tools"))}


def _turn(turn: Json, at: str, of_tools: ToolTurns) -> Row:
    said = _object(turn, at)
    if is_list(said.get("tool_calls")) or said.get("tool_call_id"):
        return said  # a message as OpenAI has it
    who, what = ("role", "content") if "role" in said else ("from", "value")
    speaker, text = _taken(said, who, at), _text(_taken(said, what, at), f"{at}.{what}")
    if isinstance(speaker, str) and speaker in CALLS | ANSWERS:
        message = of_tools.call(text, f"{at}.{what}") if speaker in CALLS else of_tools.answer(text, at)
    else:
        message = _message(_role(speaker, ROLES_OF_SHAREGPT, at), text)
    weight = {"weight": said.pop("weight")} if said.get("weight") is not None else {}
    _nothing_left(said, at)
    return message | weight


def _chosen_rejected(unread: Row, changes: list[str]) -> Row:
    system = _system(unread, changes)
    better, worse = _taken(unread, "chosen"), _taken(unread, "rejected")
    prompt = unread.pop("prompt", None)
    asked = prompt if is_list(prompt) else [] if prompt is None else [_message("user", _text(prompt, "prompt"))]
    if not is_list(better) or not is_list(worse):
        texts = (_text(better, "chosen"), _text(worse, "rejected"))
        if not asked:
            raise RowNotConvertedError("the answers are texts, and there is no prompt that they answer")
        return _preference([*system, *asked], *([_message("assistant", text)] for text in texts))
    if unread.get("messages") == better:
        del unread["messages"]
        changes.append("field messages left out, which repeats chosen")
    n_shared = _n_shared(better, worse)
    if n_shared and any(message not in better[:n_shared] for message in asked):
        raise RowNotConvertedError("the prompt is not in what chosen and rejected have in common")
    if n_shared:
        changes.append("beginning shared by chosen and rejected made the input")
    return _preference([*system, *(better[:n_shared] or asked)], better[n_shared:], worse[n_shared:])


def _n_shared(better: list[Json], worse: list[Json]) -> int:
    """How many messages both begin with, the last of each apart."""
    together = list(zip(better[:-1], worse[:-1], strict=False))
    return next((n for n, (one, other) in enumerate(together) if one != other), len(together))


def _preference(asked: list[Json], better: list[Json], worse: list[Json]) -> Row:
    return {"input": {"messages": asked}, PREFERRED: better, NON_PREFERRED: worse}


def _input_list(unread: Row, changes: list[str]) -> Row:
    changes.append("list of messages made an input")
    return {"input": {"messages": _list(_taken(unread, "input"), "input")}} | _pop_all(unread, KEYS)


def _vertex(unread: Row, changes: list[str]) -> Row:
    messages: list[Json] = []
    for key in ("systemInstruction", "system_instruction"):
        if (told := unread.pop(key, None)) is not None:
            changes.append("system prompt moved into a system message")
            text = told if isinstance(told, str) else _joined(_without_role(_object(told, key)), "parts", at=key)
            messages.append(_message("system", text))
    for index, turn in enumerate(_list(_taken(unread, "contents"), "contents")):
        at = f"contents[{index}]"
        said = _object(turn, at)
        role = _role(_taken(said, "role", at), ROLES_OF_VERTEX, at)
        messages.append(_message(role, _joined(said, "parts", at=at)))
    return {"messages": messages}


def _without_role(told: Row) -> Row:
    """Vertex passes over the role of a system instruction."""
    told.pop("role", None)
    return told


def _bedrock(unread: Row, changes: list[str]) -> Row:
    messages: list[Json] = []
    if unread.get("system") and not isinstance(unread["system"], str):
        changes.append("system prompt moved into a system message")
        messages.append(_message("system", _parts(unread.pop("system"), "system")))
    else:
        messages += _system(unread, changes)
    for index, turn in enumerate(_list(_taken(unread, "messages"), "messages")):
        at = f"messages[{index}]"
        said = _object(turn, at)
        if is_list(said.get("content")):
            said["content"] = _parts(said["content"], f"{at}.content")
        messages.append(said)
    return {"messages": messages}


def _text_only(unread: Row, changes: list[str]) -> Row:
    raise RowNotConvertedError(NO_QUESTION)


def _own(unread: Row, changes: list[str]) -> Row:
    keys = KEYS if is_preference(unread) else CHAT_KEYS
    return _pop_all(unread, tuple(key for key in keys if key == "messages" or unread.get(key) is not None))


def _pop_all(unread: Row, keys: tuple[str, ...]) -> Row:
    return {key: unread.pop(key) for key in keys if key in unread}


def _system(unread: Row, changes: list[str]) -> list[Json]:
    """The messages that a field `system` becomes: one, or none."""
    if "system" not in unread:
        return []
    text = _text(unread.pop("system") or "", "system")
    changes.append("system prompt moved into a system message" if text.strip() else "blank system prompt dropped")
    return [_message("system", text)] if text.strip() else []


def _message(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def _trimmed(text: str, what: str, changes: list[str]) -> str:
    if text.strip() != text:
        changes.append(f"blanks around {what} dropped")
    return text.strip()


def _joined(said: Row, key: str, *, at: str) -> str:
    text = _parts(_taken(said, key, at), f"{at}.{key}")
    _nothing_left(said, at)
    return text


def _parts(value: Json, at: str) -> str:
    parts = [_object(part, at) for part in _list(value, at)]
    if any(part.pop("type", "text") != "text" or [*part] != ["text"] for part in parts):
        raise RowNotConvertedError(f"{at} has a part that is no text, and only text can be trained on")
    return "".join(_text(part["text"], at) for part in parts)


def _role(found: Json, roles: dict[str, str], at: str) -> str:
    role = roles.get(found) if isinstance(found, str) else None
    if role is None:
        raise RowNotConvertedError(f"{at} is said by none of {', '.join(roles)}")
    return role


def _nothing_left(said: Row, at: str) -> None:
    lost = [ascii(key[:40])[1:-1] for key, value in said.items() if value not in _NOTHING]
    if lost:
        raise RowNotConvertedError(f"{at} has more than is converted: {', '.join(lost)}")


def _taken(unread: Row, key: str, at: str = "") -> Json:
    if key not in unread:
        raise RowNotConvertedError(f"{at + ': ' if at else ''}the field {key} is missing")
    return unread.pop(key)


def _text(value: Json, at: str) -> str:
    if not isinstance(value, str):
        raise RowNotConvertedError(f"{at} is {kind(value)}, not a string")
    return value


def _list(value: Json, at: str) -> list[Json]:
    if not is_list(value):
        raise RowNotConvertedError(f"{at} is {kind(value)}, not a list")
    return value


def _object(value: Json, at: str) -> Row:
    """A copy."""
    if not isinstance(value, dict):
        raise RowNotConvertedError(f"{at} is {kind(value)}, not an object")
    return dict(value)


_CONVERTERS: dict[Shape | None, Callable[[Row, list[str]], Row]] = {
    None: _own,
    Shape.PROMPT_COMPLETION: _prompt_completion,
    Shape.ALPACA: _alpaca,
    Shape.SHAREGPT: _sharegpt,
    Shape.CHOSEN_REJECTED: _chosen_rejected,
    Shape.INPUT_LIST: _input_list,
    Shape.VERTEX: _vertex,
    Shape.BEDROCK: _bedrock,
    Shape.TEXT_ONLY: _text_only,
}
