"""Compiled loops: splitting, counting, training and encoding at the speed of machine code.

Nothing here is imported before plain Python would take longer than the kernels (`alm.tokenizers.compiled`). Numba alone
takes half a second to import, and the kernels take seconds to compile, once per machine.

A kernel works on arrays that its caller owns and grows. When one of them is full, the kernel returns early with its
state in an array. So no kernel allocates, and each is compiled for one signature only.
"""
