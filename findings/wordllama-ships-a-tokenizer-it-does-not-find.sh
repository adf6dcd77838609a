#!/usr/bin/env bash
# wordllama 0.4.0.post1: what the wheel ships to work offline is not found offline, unless its own folder is the cache.
#
# The wheel holds weights and a tokenizer, so that nothing has to be downloaded. `WordLlama.load(disable_download=True)`,
# right after the install, finds the weights and raises FileNotFoundError for the tokenizer: it looks in the package's
# folder `tokenizer`, and the wheel has it in `tokenizers`. Without `disable_download` the file comes from a model hub,
# so whoever tries it on a machine with a network does not notice, and a server without one cannot start. With the package's own folder given as the cache, where the name with "s" is the right one, both
# files are found.
# What to do instead: WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check wordllama==0.4.0.post1 numpy==2.4.6 tokenizers==0.23.3

cd "$work"
HOME="$work" "$work/env/bin/python" - <<'EOF'
from pathlib import Path

import wordllama
from wordllama import WordLlama

here = Path(wordllama.__file__).parent
shipped = sorted(str(path.relative_to(here)) for path in here.rglob("*tokenizer*.json"))
print("shipped:", shipped)
assert any(name.startswith("tokenizers/") for name in shipped)

try:
    WordLlama.load(disable_download=True)
except FileNotFoundError as error:
    print("load(disable_download=True):", str(error).replace(str(here), "…"))
else:
    raise SystemExit("it was found")

loaded = WordLlama.load(cache_dir=here, disable_download=True)
print("with its own folder as the cache:", loaded.embed(["a lamp"]).shape)
EOF
echo "as described"
