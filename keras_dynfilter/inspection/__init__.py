# SPDX-License-Identifier: Apache-2.0
"""Tools that look into dynamic filter networks: FLOPs, generated filters, optical flow, filter repositories, pictures.

matplotlib and imgviz, which only the pictures need (`pip install 'keras_dynfilter[examples]'`), are imported on first use.
"""

from keras_dynfilter.inspection.flops import count_flops, count_parameters
from keras_dynfilter.inspection.flow import end_point_error, filters_to_flow, flow_to_color, show_color_wheel
from keras_dynfilter.inspection.generated_filters import generated_filters
from keras_dynfilter.inspection.repository_analysis import inspect_repository, repository_swap
from keras_dynfilter.inspection.show_filters import DIVERGING, new_figure, show_filters, show_images

__all__ = [
    "DIVERGING",
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
