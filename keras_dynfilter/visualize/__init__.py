# SPDX-License-Identifier: Apache-2.0
"""Pictures of filters, flow and sequences for the experiments. Takes arrays, needs no display.

    flow = filters_to_flow(filters, kernel_size=11)
    figure = highway_figure(inputs, targets, predictions, flow)
    figure.savefig("highway.png", dpi=150)

matplotlib, Pillow and imgviz (the extra `examples`) are imported on first use.
"""

from keras_dynfilter.visualize.filter_figures import filters_figure, stereo_figure
from keras_dynfilter.visualize.flow import end_point_error, filters_to_flow, flow_to_color, show_color_wheel
from keras_dynfilter.visualize.panels import DIVERGING, new_figure, show_filters, show_images
from keras_dynfilter.visualize.sequences import save_gif, sequence_grid
from keras_dynfilter.visualize.video_figures import highway_figure, moving_mnist_figure, out_of_domain_figure

__all__ = [
    "DIVERGING",
    "end_point_error",
    "filters_figure",
    "filters_to_flow",
    "flow_to_color",
    "highway_figure",
    "moving_mnist_figure",
    "new_figure",
    "out_of_domain_figure",
    "save_gif",
    "sequence_grid",
    "show_color_wheel",
    "show_filters",
    "show_images",
    "stereo_figure",
]
