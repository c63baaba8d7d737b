"""What every test gets."""

import os
import tempfile

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cores(tmp_path_factory):
    """Locks on cores of these tests' own: a training beside them must not keep them waiting."""
    folder = str(tmp_path_factory.mktemp("cores"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
