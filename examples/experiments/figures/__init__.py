# SPDX-License-Identifier: Apache-2.0
"""Pictures of filters, flow and sequences for the experiments. Takes arrays, needs no display.

    flow = inspection.filters_to_flow(filters, kernel_size=11)
    figure = highway_figure(inputs, targets, predictions, flow)
    figure.savefig("highway.png", dpi=150)

matplotlib, Pillow and imgviz (the extra `examples`) are imported on first use.
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
