# SPDX-License-Identifier: Apache-2.0
"""Options, training, checkpoints, sweeps, statistics and tables of all experiments."""
