"""Fits trained by schedulers of other machines: Ray and SLURM."""
