# SPDX-License-Identifier: Apache-2.0
"""Pictures of filters, flow and sequences for the experiments. Takes arrays, needs no display.

    flow = filters_to_flow(filters, kernel_size=11)
    figure = highway_figure(inputs, targets, predictions, flow)
    figure.savefig("highway.png", dpi=150)

matplotlib, Pillow and imgviz (the extra `examples`) are imported on first use.
"""

from examples.experiments.figures.filter_figures import filters_figure, stereo_figure
from examples.experiments.figures.sequences import save_gif, sequence_grid
from examples.experiments.figures.video_figures import highway_figure, moving_mnist_figure, out_of_domain_figure
from keras_dynfilter.inspection.flow import end_point_error, filters_to_flow, flow_to_color, show_color_wheel
from keras_dynfilter.inspection.show_filters import DIVERGING, new_figure, show_filters, show_images

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
