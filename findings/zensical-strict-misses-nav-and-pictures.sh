#!/usr/bin/env bash
# zensical 0.0.73: a strict build passes with a page of `nav` that does not exist, and with a picture that does not exist.
#
# Zensical reads mkdocs.yml, `nav` and `strict` included, and its --strict fails on a Markdown link to a page or an anchor
# that is not there. A file that `nav` lists and nobody wrote, and an image whose file is missing, are no errors: the
# build ends with status 0. mkdocs 1.6.1 aborts on both with --strict. A project that moves from one to the other with an
# unchanged file loses these two checks without a word.
# What to do instead: a test that compares `nav` with the pages, and looks up every picture.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check zensical==0.0.73 mkdocs==1.6.1

site() { # a site whose page and nav are given
  rm -rf "$work/site" && mkdir -p "$work/site/docs"
  printf 'site_name: t\nstrict: true\nnav: %s\n' "$2" >"$work/site/mkdocs.yml"
  printf '# A page\n\n%s\n' "$1" >"$work/site/docs/index.md"
}
builds() { # whether a strict build of the site passes
  (cd "$work/site" && "$work/env/bin/$1" build --strict --clean >"$work/output" 2>&1) && echo passes || echo fails
}

for case in 'text|[index.md]' 'text|[index.md, missing.md]' '![picture](none.png)|[index.md]' '[link](none.md)|[index.md]'; do
  site "${case%|*}" "${case#*|}"
  printf '%-38s zensical %s, mkdocs %s\n' "$case" "$(builds zensical)" "$(builds mkdocs)"
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
text|[index.md]                        zensical passes, mkdocs passes
text|[index.md, missing.md]            zensical passes, mkdocs fails
![picture](none.png)|[index.md]        zensical passes, mkdocs fails
[link](none.md)|[index.md]             zensical fails, mkdocs fails
SEEN
echo "as described"
