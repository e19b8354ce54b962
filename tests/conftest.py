"""Settings for all tests: no deadlines (machines are shared), one thread, no network, quiet georeference warnings."""

import os
import warnings

# A few pixels are not worth waking other threads for, here or in processes that tests start. Before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from rasterio.errors import NotGeoreferencedWarning

settings.register_profile("wasnow", deadline=None, max_examples=40, derandomize="CI" in os.environ)
settings.load_profile("wasnow")


@pytest.fixture(autouse=True)
def _expected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
