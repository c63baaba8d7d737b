"""The report: one HTML page about a competition; and pandas frames for a notebook."""
