# SPDX-License-Identifier: Apache-2.0
"""Draws the figures of the experiments: predicted frames, filters, flow and disparity. Needs no display.

    flow = inspection.filters_to_flow(filters, kernel_size=11)
    figure = highway_figure(inputs, targets, predictions, flow)
    figure.savefig("highway.png", dpi=150)

`keras_dynfilter.inspection` has the parts that are useful outside the experiments, such as `show_filters`. matplotlib,
Pillow and imgviz (the extra `examples`) are imported on first use.
"""

from examples.experiments.figures.filter_figures import filters_figure, stereo_figure
from examples.experiments.figures.sequences import save_gif, sequence_grid
from examples.experiments.figures.video_figures import highway_figure, moving_mnist_figure, out_of_domain_figure

__all__ = [
    "filters_figure",
    "highway_figure",
    "moving_mnist_figure",
    "out_of_domain_figure",
    "save_gif",
    "sequence_grid",
    "stereo_figure",
]
