"""The checks of a bundle's heatmaps: what is measured, its figures, its report."""
