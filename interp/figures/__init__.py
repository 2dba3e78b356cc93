"""Arrays and labels in, plotly figures out: pure functions that set no template and escape every label.

Labels are readable text (as ``Tokens.labels`` gives it); equal labels stay apart because they sit at integer positions.
"""

from interp.figures.attribution import attribution_bars, attribution_by_layer, attribution_heads
from interp.figures.lens import MEASURES, lens_heatmap, target_trajectory, trajectory_values
from interp.figures.logits import logits_bar
from interp.figures.story import story_heatmap, story_lines, token_bars

__all__ = [
    "MEASURES",
    "attribution_bars",
    "attribution_by_layer",
    "attribution_heads",
    "lens_heatmap",
    "logits_bar",
    "story_heatmap",
    "story_lines",
    "target_trajectory",
    "token_bars",
    "trajectory_values",
]
