# SPDX-License-Identifier: Apache-2.0
"""The root of the checkout that is tested."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
