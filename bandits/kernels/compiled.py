"""How loops are compiled, and the types they take: see docs/decisions/compiled.md.

Sums run in a fixed order, nothing fused and nothing reordered: the same arguments give the same
bits. Arrays are C-contiguous.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.core import cgutils, event
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from bandits import compiling

F = TypeVar("F", bound=Callable[..., Any])
Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]
Bools = NDArray[np.bool_]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class _Told(event.Listener):  # type: ignore[misc] # numba has no types
    """Who is told that a loop is compiled: it was not found on disk."""

    def on_start(self, event: event.Event) -> None:  # noqa: ARG002 - numba's signature
        compiling.begins()

    def on_end(self, event: event.Event) -> None:
        """Do nothing."""


event.register("numba:compile", _Told())


def compiled(*arguments: Any, returns: Any = types.void) -> Callable[[F], F]:
    """Return a decorator that compiles for these types at once, not in a first request.

    Numba keeps the result on disk.

    Args:
        arguments: the numba type of each argument.
        returns: the numba type of the result.
    """
    made: Callable[[F], F] = numba.njit(
        returns(*arguments), cache=True, error_model="numpy", nogil=True
    )
    return made


def inlined(function: F) -> F:
    """Make a function a part of the compiled functions that call it."""
    made: F = numba.njit(error_model="numpy")(function)
    return made


def spliced(function: F) -> F:
    """Do the same before anything is compiled: for what is called in the innermost loops.

    Else each array that is handed over is counted as held once more, and let go, unless the
    compiler sees that nobody needs to know.
    """
    made: F = numba.njit(error_model="numpy", inline="always")(function)
    return made


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def borrowed(_typing: Any, array: Any) -> Any:
    """Return an argument of a compiled function, an array, as one that nobody counts as held.

    Else it is counted as held once more, and let go, by each function that is called with it,
    unless the compiler sees that nobody needs to know. Whoever calls the compiled one holds it; so
    neither it nor a part of it may be returned.
    """

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = make_array(signature.args[0])(context, builder, arguments[0])
        found.meminfo = cgutils.get_null_value(found.meminfo.type)
        found.parent = cgutils.get_null_value(found.parent.type)
        return found._getvalue()  # noqa: SLF001 - as numba's own do

    return array(array), made


def read_only(kind: Any, dimensions: int = 1) -> Any:
    """Return the type of a C-contiguous array that is not written to, and need not be writeable.

    Args:
        kind: the numba type of its elements.
        dimensions: how many axes it has.
    """
    return types.Array(kind, dimensions, "C", readonly=True)


i8, f8, truth = types.int64, types.float64, types.boolean
u4s, i4s, i8s, f4s = (
    read_only(types.uint32),
    read_only(types.int32),
    read_only(types.int64),
    read_only(types.float32),
)
f8s, truths = read_only(types.float64), read_only(types.boolean)
i4ss, f4ss = read_only(types.int32, 2), read_only(types.float32, 2)
f4sss = read_only(types.float32, 3)
