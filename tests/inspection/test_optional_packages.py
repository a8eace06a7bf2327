# SPDX-License-Identifier: Apache-2.0
"""`keras_dynfilter.inspection` can be imported without the packages that only its pictures need."""

import sys

import pytest

from keras_dynfilter import inspection
from keras_dynfilter.inspection.optional_packages import import_optional

pytestmark = pytest.mark.legacy
WITHOUT = """
import sys
sys.modules.update({"matplotlib": None, "imgviz": None})  # importing them raises an ImportError
from keras_dynfilter import inspection
print(*inspection.__all__)
"""


def test_import_without_the_packages(python):
    done = python("-c", WITHOUT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == inspection.__all__


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "imgviz", None)
    with pytest.raises(ImportError, match=r"flow_to_color needs imgviz\. .* pip install 'keras_dynfilter\[examples\]'"):
        import_optional("imgviz", "imgviz", "flow_to_color")
    assert import_optional("math", "math", "nobody").pi > 3
