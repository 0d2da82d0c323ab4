"""Pictures of architectures and searches: SVG as text, and one report page. No TensorFlow, no plotting library."""
