"""The tests of regproxy.

An example that takes long on a busy machine is no failure. The rest of Hypothesis's
profile stays, so that with CI=true the same examples are tried each time.
"""

from hypothesis import settings

settings.register_profile("regproxy", settings.default, deadline=None)
settings.load_profile("regproxy")
