"""Pages of runs and evaluations: one HTML file each, which needs no network and no server."""
