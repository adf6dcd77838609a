#!/usr/bin/env bash
# numpy 2.4.6: einsum over an empty axis may give NaN, where a product of matrices gives 0.
#
# A sum of no products is 0. Where the empty axis of one of two operands has a stride of 0, einsum adds 0 times the
# number at that operand's address, though it has no elements: NaN or infinity there makes every sum NaN. What an
# empty index returns has such a stride, and a slice of no columns the other one, so ordinary code comes upon it; here
# the empty array is cut from one of NaN, so that it happens each time. Otherwise tests pass until the memory behind
# an empty array happens to hold NaN.
# What to do instead: return zeros where the axis is empty; or "features @ weights".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check numpy==2.4.6

"$work/env/bin/python" - <<'EOF'
import numpy as np
from numpy.lib.stride_tricks import as_strided

features = np.zeros((2, 3))[:, :0]
empty = np.full(4, np.nan)[:0]
weights = as_strided(empty, shape=(0,), strides=(0,))

chosen = np.ones(3)[np.empty(0, np.int64)]
print("strides of an array indexed by an empty one:", chosen.strides)
assert chosen.strides == (0,)

print("stride 8, einsum:", np.einsum("kn,n->k", features, empty))
print("stride 0, einsum:", np.einsum("kn,n->k", features, weights))
print("stride 0, matmul:", features @ weights)
assert (np.einsum("kn,n->k", features, empty) == 0).all()
assert np.isnan(np.einsum("kn,n->k", features, weights)).all()
assert (features @ weights == 0).all()
EOF
echo "as described"
