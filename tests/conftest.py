from hypothesis import settings

# The same examples in every run; time limits are pytest's, because machines are shared.
settings.register_profile("banditloop", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("banditloop")
