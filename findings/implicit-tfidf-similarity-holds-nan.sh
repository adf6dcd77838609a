#!/usr/bin/env bash
# implicit 0.7.3: TFIDFRecommender gives NaN similarities where a user has all items but one, and negative weights
# where one has all.
#
# The inverse document frequency of a user is log(N) - log(1 + n), of N items of which the user has n. It is 0 for
# n = N - 1, so an item that only such users have is a row of zeros, which is then divided by its length, 0: the fitted
# similarity holds NaN, without a warning, and so do the scores of whoever has such an item. For n = N it is
# below 0. Catalogues of a few items, or of one category, have such users; a test data set nearly always.
# What to do instead: leave NaN out of the neighbours, or weight without the inverse frequency where N is small.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check implicit==0.7.3 numpy==2.4.6 scipy==1.17.1

OPENBLAS_NUM_THREADS=1 "$work/env/bin/python" - <<'EOF'
import numpy as np
from implicit.nearest_neighbours import TFIDFRecommender, tfidf_weight
from scipy.sparse import csr_matrix

# Two users, who have three of four items each.
users_items = csr_matrix(np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]]))
model = TFIDFRecommender(K=3)
model.fit(users_items, show_progress=False)
similarity = model.similarity.toarray()
print("similarity:", similarity.tolist())
assert np.isnan(similarity).any()

# A user who has every item.
weighted = tfidf_weight(csr_matrix(np.ones((4, 1)))).toarray()
print("weights of items for a user who has all four:", weighted.ravel().tolist())
assert (weighted < 0).all()
EOF
echo "as described"
