"""The network: views of a slice, transposed and windowed attention with prompts in every layer, dual head, slice weights."""
