"""Black-box search over any space of genotypes: NumPy and Optuna, no TensorFlow."""
