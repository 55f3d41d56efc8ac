"""The Triton kernels of the operators, and what decides their tiles.

`fused` serves texts that fit one tile of keys, `long` any number of keys, `given_lse` an attention
that ran elsewhere; `launch` turns tensors into launches of them, `configurations` holds the table
of tiles, and `resources` reads from machine code what a kernel takes.
"""
