"""What an expression's text says, as a tree, by CEL's grammar."""

import itertools
import re
from typing import Final, NamedTuple

from bandits.errors import SpecError
from policies.rules.cel.tokens import (
    END,
    MOST_NESTED,
    NAME,
    NUMBERS,
    OTHER,
    SIGN,
    WORDS,
    Token,
    literal_of,
    tokens_of,
)
from policies.rules.expressions import (
    ROOTS,
    Field,
    Has,
    ListOf,
    Literal,
    Node,
    Operation,
    abbreviated,
    terms_of,
)
from policies.typed_yaml import nearest

MOST_CHARACTERS: Final = 10_000
"""The length of an expression at most."""
PLAIN: Final = frozenset({"text", "float", "integer"})
TOO_DEEP: Final = f"it is nested more than {MOST_NESTED} deep"
CHAINS: Final = ("||", "&&")
RELATIONS: Final = ("<", "<=", ">", ">=", "==", "!=", "in")
LEVELS: Final = {
    name: level
    for level, names in enumerate((("||",), ("&&",), RELATIONS, "+-", "*/%"), start=1)
    for name in names
}
"""Operators of two sides, by how strongly they bind."""
FUNCTIONS: Final = {"has": 1, "size": 1}
METHODS: Final = {"startsWith": 1, "endsWith": 1, "contains": 1, "size": 0}
"""By name, how many arguments they take; of a method, beside what it is called on."""
OTHER_TONGUES: Final = re.compile(r"[^=!<>]=[^=]|\b(and|or|not|AND|OR|NOT)\b")
"""How others write what CEL writes with signs."""


def parse(text: str, where: str) -> Node:
    """Return the tree of an expression; the time is proportional to its length.

    Args:
        text: the expression.
        where: the field it is in; errors name it.

    Raises:
        SpecError: it is too long, nested too deep, no CEL, or CEL that says nothing of an item.
    """
    if not text.strip():
        raise SpecError("it is empty: leave it out, or write true", where)
    if len(text) > MOST_CHARACTERS:
        raise SpecError(
            f"it has {len(text):,} characters, and {MOST_CHARACTERS:,} are the most: a list of"
            " items is better a feature of theirs",
            where,
        )
    return _Reader(text, where).whole()


class _Root(NamedTuple):
    """A name that stands for itself: something of it has to be named."""

    name: str


class _Map(NamedTuple):
    """What is written in braces, and has no meaning in a rule."""


Read = Node | _Root | _Map


class _Reader:
    """Reads an expression from left to right, by CEL's grammar."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where
        self._tokens = tokens_of(text, where)
        self._at = 0

    def whole(self) -> Node:
        """Return the tree of the whole text."""
        node = self._node(self._choice())
        if self._next().kind != END:
            raise self._no_expression()
        if _height(node) > MOST_NESTED:
            raise self._error(TOO_DEEP)
        return node

    # What stands in a row

    def _choice(self) -> Read:
        choices, last = [], self._row()
        while self._takes("?"):
            one = self._node(self._row())
            self._expect(":")
            choices.append((self._node(last), one))
            last = self._row()
        for condition, one in reversed(choices):
            last = Operation("?:", (condition, one, self._node(last)))
        return last

    def _row(self) -> Read:
        """Read what operators of two sides stand between, by Dijkstra's two stacks."""
        read, waiting = [self._signed()], list[tuple[str, int]]()
        while level := LEVELS.get(name := self._next().text, 0):
            run = 1  # so many of its level stand in a row
            while waiting and LEVELS[waiting[-1][0]] >= level:
                before, many = waiting.pop()
                if LEVELS[before] == level:
                    run = many + 1
                    if name in CHAINS:
                        break
                self._join(read, before, many)

            if run > 1 and name in RELATIONS:
                raise self._error("two comparisons in a row: join them with &&")
            if run > MOST_NESTED and name not in CHAINS:
                raise self._error(f"there are more than {MOST_NESTED} of + - * / % in a row")
            self._at += 1
            waiting.append((name, run))
            read.append(self._signed())

        while waiting:
            self._join(read, *waiting.pop())
        return read[0]

    def _join(self, read: list[Read], name: str, many: int) -> None:
        """Put what an operator makes of the last that was read in the place of that.

        Args:
            read: what was read.
            name: of the operator.
            many: how often it stands there, if it is one of CHAINS.
        """
        taken = many + 1 if name in CHAINS else 2
        args = tuple(self._node(each) for each in read[-taken:])
        if name in CHAINS:
            args = tuple(itertools.chain.from_iterable(terms_of(each, name) for each in args))
        read[-taken:] = [Operation(name, args)]

    def _signed(self) -> Read:
        signs: list[str] = []
        while sign := self._takes("!", "-"):
            number, at = self._next(), self._tokens[self._at - 1].at
            if sign == "-" and number.kind in NUMBERS and number.at == at + 1:
                self._tokens[self._at] = Token(number.kind, f"-{number.text}", at)
                break
            signs.append(sign)
            if len(signs) > MOST_NESTED:
                raise self._error(TOO_DEEP)
        node = self._member()
        for sign in reversed(signs):
            node = Operation("neg" if sign == "-" else "!", (self._node(node),))
        return node

    # What stands by itself

    def _member(self) -> Read:
        """Read a primary expression, and what is asked of it."""
        node = self._primary()
        while sign := self._takes(".", "[", "{"):
            if sign == "{":
                raise self._error("a message has no meaning in a rule")
            if sign == "[":
                name = self._choice()
                self._expect("]")
                if not isinstance(name, Literal) or not isinstance(name.value, str):
                    raise self._error('a field in brackets is a text, as in item["release date"]')
                node = Field(self._root(node), name.value)
                continue

            token = self._next()
            if token.kind != NAME or token.text in {"true", "false"}:
                raise self._no_expression()
            self._at += 1
            if self._takes("("):
                node = self._called(token.text, METHODS, [self._node(node)])
            else:
                node = Field(self._root(node), token.text)
        return node

    def _primary(self) -> Read:
        self._takes_dot()
        token = self._next()
        self._at += 1
        if _is_name(token):
            if self._takes("("):
                return self._called(token.text, FUNCTIONS, [])
            return _Root(token.text)
        if token.kind not in {SIGN, OTHER, END} and token.text != "in":
            return literal_of(token, self._where)
        if token.text == "(":
            inner = self._choice()
            self._expect(")")
            return inner
        if token.text == "[":
            return self._list()
        if token.text == "{":
            return self._map()

        self._at -= 1
        raise self._no_expression()

    def _takes_dot(self) -> None:
        """Go on behind the dot before a name, which says nothing here."""
        if self._next().text == "." and _is_name(self._tokens[self._at + 1]):
            self._at += 1

    def _listed(self, end: str) -> list[Node]:
        """Read what commas stand between, and what ends it."""
        read: list[Node] = []
        while not (not read and self._takes(end)):
            read.append(self._node(self._choice()))
            if self._takes(end):
                break
            self._expect(",")
        return read

    def _list(self) -> Node:
        items = [*self._plain(), *self._listed("]")]
        values = tuple(each.value for each in items if isinstance(each, Literal))
        if len(values) < len(items):
            raise self._error("a list is of numbers, texts or flags")
        if len({type(value) for value in values}) > 1:
            raise self._error("a list is of numbers, or of texts, not of both")
        return ListOf(values)

    def _plain(self) -> list[Node]:
        """Read the numbers and texts that a list begins with, but the last before it ends."""
        read: list[Node] = []
        tokens, at = self._tokens, self._at
        while tokens[at].kind in PLAIN and tokens[at + 1].text == ",":
            if tokens[at + 2].text == "]":
                break
            read.append(literal_of(tokens[at], self._where))
            at += 2
        self._at = at
        return read

    def _map(self) -> _Map:
        while not self._takes("}"):
            self._choice()
            self._expect(":")
            self._choice()
            if self._next().text != "}":
                self._expect(",")
        return _Map()

    def _root(self, read: Read) -> str:
        """Return the name that a field belongs to."""
        if not isinstance(read, _Root):
            raise self._error("a field of a field, or of what is in brackets, has no meaning")
        if read.name not in ROOTS:
            said = repr(abbreviated(read.name))
            raise self._error(f"there is no {said}: fields are of {', '.join(ROOTS)}")
        return read.name

    def _node(self, read: Read) -> Node:
        """Return what was read, if it has a meaning by itself."""
        if isinstance(read, _Map):
            raise self._error("a map has no meaning in a rule")
        if not isinstance(read, _Root):
            return read
        name = abbreviated(read.name)
        if name in ROOTS:
            raise self._error(f"{name} alone says nothing: name a field, such as {name}.name")
        hint = nearest(name, list(ROOTS))
        raise self._error(f"there is no {name!r}: {hint}fields are of {', '.join(ROOTS)}")

    def _called(self, name: str, known: dict[str, int], of: list[Node]) -> Node:
        """Read the arguments of a function, or of a method of something."""
        wanted = known.get(name)
        if wanted is None:
            everything = list(dict.fromkeys([*FUNCTIONS, *METHODS]))
            if name in everything:
                written = f'item.title.{name}("The ")' if name in METHODS else f"{name}(item.stock)"
                raise self._error(f"{name} is written as in {written}")
            raise self._error(
                f"there is no function {abbreviated(name)!r}:"
                f" {nearest(abbreviated(name), everything)}there are"
                f" {', '.join(everything)}"
            )

        args = self._listed(")")
        if len(args) != wanted:
            raise self._error(f"{name} takes {wanted}, not {len(args)}")
        args = [*of, *args]
        if name == "has":
            if not isinstance(args[0], Field):
                raise self._error("has asks about a field, as in has(item.stock)")
            return Has(args[0])
        return Operation(name, tuple(args))

    # Tokens

    def _next(self) -> Token:
        return self._tokens[self._at]

    def _takes(self, *signs: str) -> str:
        """Go on behind one of some signs and return it; return nothing if none is next."""
        token = self._tokens[self._at]
        if token.text not in signs:
            return ""
        self._at += 1
        return token.text

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise self._no_expression()

    def _error(self, reason: str) -> SpecError:
        return SpecError(reason, self._where)

    def _no_expression(self) -> SpecError:
        """Return what says that the token that is next cannot stand there."""
        token = self._tokens[self._at]
        began = self._text.rfind("\n", 0, token.at) + 1
        line, at = self._text.count("\n", 0, token.at) + 1, token.at - began + 1
        excerpt = self._text[began:].partition("\n")[0][max(0, at - 21) : at + 19].strip()
        hint = "; equal is ==, and is &&, or is ||" if OTHER_TONGUES.search(excerpt) else ""
        return self._error(
            f"line {line}, column {at}: this is no expression, near {excerpt!r}{hint}"
        )


def _is_name(token: Token) -> bool:
    return token.kind == NAME and token.text not in WORDS


def _height(node: Node) -> int:
    """Return how deep operators stand in one another."""
    deep, row = 0, [node]
    while row := [arg for each in row if isinstance(each, Operation) for arg in each.args]:
        deep += 1
    return deep
