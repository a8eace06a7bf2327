# SPDX-License-Identifier: Apache-2.0
"""Inspects dynamic filter networks: counts operations, returns generated filters, optical flow and the parts of filter
repositories, and draws pictures.

Only the functions for pictures and colours need matplotlib and imgviz (`pip install 'keras_dynfilter[examples]'`). They
import these packages on first use.
"""

from keras_dynfilter.inspection.flops import count_flops, count_parameters
from keras_dynfilter.inspection.flow import end_point_error, filters_to_flow
from keras_dynfilter.inspection.flow_colors import flow_to_color, show_color_wheel
from keras_dynfilter.inspection.generated_filters import generated_filters
from keras_dynfilter.inspection.repository_analysis import inspect_repository, repository_swap
from keras_dynfilter.inspection.show_filters import new_figure, show_filters, show_images

__all__ = [
    "count_flops",
    "count_parameters",
    "end_point_error",
    "filters_to_flow",
    "flow_to_color",
    "generated_filters",
    "inspect_repository",
    "new_figure",
    "repository_swap",
    "show_color_wheel",
    "show_filters",
    "show_images",
]
