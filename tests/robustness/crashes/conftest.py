"""The run from whose crashes others go on."""

import pytest
from robustness.proof import lives


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("crashes")
        patch.setenv("HOME", str(folder))
        with lives("store", folder) as proof:
            yield proof
