"""What can be wrong with a training file: stable reason codes, each with what it means and how to mend it.

Codes are part of the API: clients branch on them, so none is renamed. Messages name keys and positions, never the
customer's text.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from policies.contract.artifacts import Record


class Reason(NamedTuple):
    """What is wrong with a row, in general, and how it is put right."""

    message: str
    """Format string; `DatasetProblem.of` fills it."""
    fix: str


ERRORS: dict[str, Reason] = {
    # the line
    "line_too_long": Reason("the line is longer than {limit} bytes", "split the conversation into several rows"),
    "invalid_utf8": Reason("byte {byte} of the line is not UTF-8", "save the file as UTF-8"),
    "blank_line": Reason("the line is blank", "remove it; only at the end of the file blank lines are passed over"),
    "invalid_json": Reason("not JSON: {detail}", "write each row with a JSON library, on one line"),
    "trailing_data": Reason(
        "text follows the JSON object, from column {column}", "one JSON object a line, nothing after it"
    ),
    "duplicate_key": Reason("the key {key} occurs twice in one object", "keep one of the two"),
    "non_finite_number": Reason("{number} is not a JSON number", "write a finite number, or leave the field out"),
    "too_deep": Reason("nested deeper than {limit} levels", "flatten the value"),
    "not_an_object": Reason("the row is {found}, not an object", 'write {{"messages": […]}}'),
    # the row
    "missing_field": Reason("the field is missing", "add it"),
    "unknown_field": Reason("the field is unknown and would not be trained on", "remove it"),
    "unsupported_field": Reason("the field is not supported in training", "remove it, or write it out in the content"),
    "wrong_type": Reason("expected {expected}, found {found}", "change the value's type"),
    "empty_messages": Reason("the row has no message", "add at least the answer to train on"),
    "too_many_messages": Reason("the row has {count} messages; {limit} is the limit", "split the conversation"),
    "unknown_role": Reason("the role is not one of {known}", "use one of them"),
    "empty_content": Reason("the content is empty or blank", "write the message's text, or remove the message"),
    "unsupported_part": Reason(
        "the content has a part of type {type}, and only text can be trained on", "leave the part out, or the row"
    ),
    "invalid_weight": Reason("the weight must be 0 or 1", "write 0 or 1, or leave it out"),
    "misplaced_weight": Reason("only assistant messages have a weight", "remove it"),
    "last_message_not_assistant": Reason(
        "the last message is not the assistant's", "end the row with the wanted answer"
    ),
    "answer_without_prompt": Reason(
        "an answer to train on begins the conversation", "put the message that it answers before it"
    ),
    "nothing_to_train_on": Reason("no assistant message has weight 1", "give the answer to train on weight 1"),
    # tools
    "invalid_name": Reason("the name is not of 1 to 64 letters, digits, _ and -", "rename it"),
    "too_many_tools": Reason("the list has {count} entries; {limit} is the limit", "leave out what is not needed"),
    "duplicate_tool": Reason("a tool of this name is offered before", "keep one of the two"),
    "invalid_arguments": Reason(
        "the arguments are not a JSON object: {detail}", "write them with a JSON library, as an object or its text"
    ),
    "tool_not_offered": Reason("the row offers no tool of this name", "put its definition into the row's tools"),
    "several_tool_calls": Reason(
        "the message has {count} calls, and parallel_tool_calls is false", "make the calls one after the other"
    ),
    "repeated_tool_call": Reason("the id stands before in the same turn", "give each call an id and one answer"),
    "unknown_tool_call": Reason(
        "the turn before has no such call", "answer a call by its id and name, right after the message that makes it"
    ),
    "unanswered_tool_call": Reason(
        "{count} calls have no answer when the conversation goes on",
        "put a message of role tool for each call after it",
    ),
    # a conversation as the base model's chat template renders it
    "template_refused": Reason(
        "the base model's chat template does not take this conversation: {detail}",
        "change the roles or their order as the message says",
    ),
    "text_not_rendered": Reason(
        "the base model's chat template leaves out what this {role} message says",
        "say it in a message of another role, or remove it",
    ),
    "tools_not_rendered": Reason(
        "the base model's chat template does not write the tool, so the model would not know of it",
        "choose a base model whose template has tools (`tunegate base check`), or remove the tools from the row",
    ),
    "tool_call_not_rendered": Reason(
        "the base model's chat template leaves out the call, or some of it",
        "choose a base model whose template has tool calls (`tunegate base check`), or write the call as text",
    ),
    "answer_not_after_prompt": Reason(
        "the base model's chat template writes this answer elsewhere than where the model begins to answer",
        "remove thoughts and marks of the template's own from the answer",
    ),
    "no_end_token": Reason(
        "the base model's chat template puts no end after this answer, so it would never learn to stop",
        "ask the operator for a base model whose template does",
    ),
    "too_many_answers": Reason(
        "the row has {count} answers, each of which the base model's chat template renders apart; {limit} is the limit",
        "split the conversation",
    ),
    # a preference row
    "last_message_not_user": Reason(
        "the last message of the input is not the user's or a tool's", "end the input with what is answered"
    ),
    "not_one_message": Reason("an output must be one assistant message, not {count}", "give exactly one"),
    "output_not_assistant": Reason("the output's role is not assistant", 'write "role": "assistant"'),
    "equal_outputs": Reason(
        "preferred and non-preferred output are the same", "give two different answers, or remove the row"
    ),
    # texts
    "control_character": Reason("the text holds the control character {character}", "remove it"),
    "lone_surrogate": Reason("the text holds half a surrogate pair, {character}", "write the whole character"),
    "too_many_tokens": Reason("the row has {count} tokens; {limit} is the limit", "shorten or split the conversation"),
    # the file
    "other_shape": Reason("the rows are of the shape {shape}, which is not trained on as it is", "{fix}"),
    "empty_file": Reason("the file is empty", "upload one JSON object a line"),
    "too_few_rows": Reason("the file has {count} rows; {limit} is the minimum", "add examples"),
    "too_many_rows": Reason("the file has more than {limit} rows", "split the file"),
    "mixed_rows": Reason(
        "a {found} row in a file of {kind} rows", "put chat and preference rows into files of their own"
    ),
    "wrong_row_kind": Reason(
        "the file has {found} rows, and method {method} trains on {wanted} rows",
        "method supervised trains on chat rows, dpo on preference rows; change the method or the file",
    ),
}
WARNINGS: dict[str, Reason] = {
    "byte_order_mark": Reason("the file begins with a byte order mark, which is skipped", "save as UTF-8 without it"),
    "crlf": Reason("lines end in CR LF", "end lines with LF"),
    "duplicate_row": Reason("the same row as line {first}", "remove one, unless it is meant to count twice"),
    "swapped_outputs": Reason(
        "line {first} has the same two answers the other way round", "keep the row that says which one is better"
    ),
    "other_answer": Reason(
        "{count} rows, line {first} the first, answer otherwise what an earlier row answers",
        "keep one answer, unless the model is to learn several",
    ),
    "question_trained": Reason(
        "{count} rows of the validation file, line {first} the first, ask what the training file asks, but for blanks "
        "and case",
        "hold out other questions: the validation loss is too low with these",
    ),
    "probably_too_many_tokens": Reason(
        "the row has about {count} tokens by its bytes; {limit} is the limit",
        "shorten it, or see whether training accepts it",
    ),
    "whitespace_trimmed": Reason(
        "the base model's chat template drops the blanks around the text", "write it without, to see what is trained"
    ),
    "control_token": Reason(
        "the text holds {token}, which looks like a control token and is trained as text",
        "remove it unless it is meant; templates are applied at training",
    ),
    "extra_field": Reason(
        "{count} rows, line {first} the first, have the field, which is not shown to the model",
        "remove it, unless you keep it for yourself",
    ),
    "legacy_functions": Reason(
        "{count} rows, line {first} the first, have the earlier form, which is read as tools and tool_calls",
        "write tools, tool_calls and messages of role tool",
    ),
    "name_not_rendered": Reason(
        "{count} rows, line {first} the first, name an assistant, or a speaker whom the base model's chat template does"
        " not name; the model is not shown it",
        "write the name into the content, if the model is to know it",
    ),
    "invisible_unicode": Reason(
        "the text holds invisible characters: {characters}", "remove them unless they are intended"
    ),
}


class DatasetProblem(Record):
    """One finding in one line."""

    line: int = Field(ge=0)
    """Counted from 1; 0 for the file as a whole."""
    field: str | None
    """JSON path such as `messages[2].content`; None for the whole line."""
    code: str
    message: str
    fix: str

    @classmethod
    def of(cls, code: str, line: int, field: str | None = None, /, **details: object) -> DatasetProblem:
        reason = ERRORS.get(code) or WARNINGS[code]
        message, fix = reason.message.format(**details), reason.fix.format(**details)
        return cls(line=line, field=field, code=code, message=message, fix=fix)

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "file"
        return f"{place}: {self.field + ': ' if self.field else ''}{self.message} ({self.code}); {self.fix}"
