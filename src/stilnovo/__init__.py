"""stilnovo: teach a Llama Italian on an 8 GB card, prove whether it got better, and talk with it over a library."""

__version__ = "0.1.0"
