"""The Llama model: weights, quantisation, LoRA, memory."""
