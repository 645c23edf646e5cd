"""Every picture that the notebooks show: plain data in, a Figure out.

Each function returns a `Picture`, a matplotlib Figure that no window ever opens for: as the last line
of a notebook cell it shows itself once, and `fig.savefig("name.png")` writes it to a file. Its
`labkit_alt` is a sentence with the picture's main numbers; it is saved in the notebook as the image's
alt text, which nbgrader's feedback pages show. Colours are Okabe and Ito's, which stay apart for
colour-blind readers, and no picture tells things apart by colour alone.
"""

from labkit.plots.runs import (
    accuracy_against_bits,
    accuracy_against_sparsity,
    schedule,
    trade_off,
    training_curve,
)
from labkit.plots.style import PALETTE, Picture
from labkit.plots.sweeps import sensitivity, sparsity_by_layer
from labkit.plots.weights import levels_picture, mask_picture, pictures, weight_histograms

__all__ = [
    "PALETTE",
    "Picture",
    "accuracy_against_bits",
    "accuracy_against_sparsity",
    "levels_picture",
    "mask_picture",
    "pictures",
    "schedule",
    "sensitivity",
    "sparsity_by_layer",
    "trade_off",
    "training_curve",
    "weight_histograms",
]
