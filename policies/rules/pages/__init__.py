"""Rules of a page: what may stand beside what, and how alike the items of one page are."""
