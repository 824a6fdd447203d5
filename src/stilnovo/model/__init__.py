"""The Llama, its weights, quantisation, LoRA and the memory they take."""
