"""One hypothesis profile for all tests."""

import os

from hypothesis import settings

# no deadline: the machine may be slow; in CI the examples are the same each time
settings.register_profile("gristmill", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("gristmill")
