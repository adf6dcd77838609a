"""An expression's text as tokens of CEL, and what its literals say."""

import re
from typing import Final, NamedTuple

from bandits.errors import SpecError
from policies.rules.expressions import Literal, abbreviated

MOST_NESTED: Final = 50
"""How deep brackets and choices may stand in one another."""
TOKEN: Final = re.compile(
    r"""
    [\t\n\f\r ]+ | //[^\n]*
    | (?P<text> [bB]? (?:
        [rR](?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' )
        | \"{3}(?: [^\\] | \\. )*?\"{3} | '{3}(?: [^\\] | \\. )*?'{3}
        | "(?: [^"\\\n] | \\[^\n] )*+" | '(?: [^'\\\n] | \\[^\n] )*+' ) )
    | (?P<name> [_a-zA-Z][_a-zA-Z0-9]* )
    | (?P<unsigned> (?: 0x[0-9a-fA-F]+ | [0-9]+ )[uU] )
    | (?P<float> (?: [0-9]+\.[0-9]* | \.[0-9]+ )(?: [eE][+-]?[0-9]+ )? | [0-9]+[eE][+-]?[0-9]+ )
    | (?P<integer> 0x[0-9a-fA-F]+ | [0-9]+ )
    | (?P<sign> [<>=!]= | && | \|\| | [-+*/%<>!?:.,()[\]{}] )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Tokens of CEL. Whatever the text, each of its characters is looked at a few times at most."""

NO_ESCAPE: Final = re.compile(
    r"""\\(?![abfnrtv\\?"'`]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2})"""
    r".?",
    re.DOTALL,
)
"""What begins as an escape in a text of CEL, where the pairs of \\\\ are left out, and is none."""

SHORT_ESCAPES: Final = {
    **dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)),
    **{sign: sign for sign in "\"'\\"},
}
ESCAPE: Final = re.compile(
    r"""\\(?:[abfnrtv"'\\]|[0-7]{3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""
)
NAME, SIGN, OTHER, END = "name", "sign", "other", "end"
NUMBERS: Final = frozenset({"float", "integer", "unsigned"})
WORDS: Final = frozenset({"true", "false", "null", "in"})
"""What is no name, though it is written like one."""


class Token(NamedTuple):
    """A sign, name, number or text: ``kind`` is a group of TOKEN, or END; ``at``: its place."""

    kind: str
    text: str
    at: int


def tokens_of(text: str, where: str) -> list[Token]:
    """Return the tokens of an expression, up to the first that is none, and an END.

    Args:
        text: the expression.
        where: the field it is in; errors name it.

    Raises:
        SpecError: brackets stand too deep in one another.
    """
    tokens, deep, at = list[Token](), 0, 0
    for found in TOKEN.finditer(text):
        kind = found.lastgroup
        if kind is None:  # space, or a comment
            continue
        said, at = found.group(), found.start()
        tokens.append(Token(kind, said, at))
        if kind == OTHER:
            break
        if kind == SIGN:
            deep += (said in "([{?") - (said in ")]}:")
            if deep > MOST_NESTED:
                reason = f"column {at + 1}: brackets stand more than {MOST_NESTED} deep"
                raise SpecError(reason, where)
    return [*tokens, Token(END, "", at)]


def literal_of(token: Token, where: str) -> Literal:
    """Return the number, text or flag that a token says.

    Args:
        token: one that is no sign.
        where: the field it is in; errors name it.

    Raises:
        SpecError: it is none that can be kept.
    """
    text = token.text
    try:
        if token.kind == "text" and text[0] not in "bB":
            return Literal(_unescaped(text, where))
        if token.kind == "float":
            return Literal(float(text))
        if token.kind == "integer":
            return Literal(float(int(text, 0) if "x" in text else int(text)))
    except (ValueError, OverflowError) as error:  # no such character, or too many digits
        reason = f"{abbreviated(text)} is no number or text that can be kept"
        raise SpecError(reason, where) from error
    if text in {"true", "false"}:
        return Literal(text == "true")

    hint = ": has(item.stock) says whether it is there" if text == "null" else ""
    raise SpecError(f"{abbreviated(text)} is no number, text or flag{hint}", where)


def _unescaped(text: str, where: str) -> str:
    """Return what a text in quotes says; a backslash that begins nothing is refused."""
    is_raw = text[0] in "rR"
    quotes = 3 if text[is_raw : is_raw + 3] in {'"""', "'''"} else 1
    inner = text[is_raw + quotes : -quotes]
    if is_raw:
        return inner
    if found := NO_ESCAPE.search(inner.replace("\\\\", "  ")):
        raise SpecError(
            f"{found.group()} is no escape of a text: write \\\\ for a backslash, or r'…'",
            where,
        )
    return ESCAPE.sub(_character, inner)


def _character(escape: re.Match[str]) -> str:
    """Return what an escape of a text stands for."""
    sign, digits = escape.group()[1], escape.group()[2:]
    if sign in "xuU":
        return chr(int(digits, 16))
    return SHORT_ESCAPES.get(sign) or chr(int(sign + digits, 8))
