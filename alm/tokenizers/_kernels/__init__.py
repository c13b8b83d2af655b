"""The loops that are compiled: splitting, counting, training and encoding at the speed of machine code.

Nothing here is imported before the plain Python would take longer than the kernels (`alm.tokenizers.engine`):
Numba alone takes half a second to import, and the kernels take seconds to compile once on each machine.

A kernel works on arrays that its caller owns and grows. It returns early, with its state in an array, when one
of them is full, so that no kernel allocates and each is compiled for one signature only.
"""
