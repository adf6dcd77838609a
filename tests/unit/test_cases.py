"""Cases of tests are the same whoever collects them, and when: several processes share them out."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
OF_THE_MOMENT = {"now", "time", "time_ns", "monotonic", "uuid1", "uuid4", "urandom", "token_hex"}


def is_of_the_moment(call: ast.Call) -> bool:
    """Whether a call gives something else each time; gzip writes down when it compressed."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    of = getattr(getattr(call.func, "value", None), "id", "")
    if (of, name) == ("gzip", "compress"):
        return all(keyword.arg != "mtime" for keyword in call.keywords)
    return name in OF_THE_MOMENT


def test_no_case_is_of_the_moment():
    found = [
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path in TESTS.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Call) and is_of_the_moment(node)
    ]
    assert found == []
