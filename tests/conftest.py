"""Settings for all tests: no deadlines (machines are shared), no network, quiet georeference warnings."""

import os
import warnings

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
