from __future__ import annotations

import pytest
from boot_rig import Rig


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.service.start()
    yield made
    made.close()
