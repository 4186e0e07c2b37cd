"""Which lane of a warp has which element, from CuTe's definitions (CUTLASS, include/cute/atom/mma_traits_sm80.hpp and
copy_traits_sm75.hpp): SM80_16x8x16_F32BF16BF16F32_TN, SM75_U32x4_LDSM_N and SM75_U16x8_LDSM_T."""

import numpy

LANES = numpy.arange(32)


def places(values, threads, strides):
    """For each value of a lane, where all lanes have it in the matrix, column by column: a lane is (4, 8), with the strides
    `threads`; a value is a mode of two for each of `strides`."""
    start = LANES % 4 * threads[0] + LANES // 4 * threads[1]
    return [start + sum((value >> bit & 1) * stride for bit, stride in enumerate(strides)) for value in range(values)]


# The operands of m16n8k16: A is 16 x 16, B 8 x 16, the result 16 x 8.
A = places(8, (32, 1), (16, 8, 128))
B = places(4, (16, 1), (8, 64))
RESULT = places(4, (32, 1), (16, 8))


def ldmatrix(register, transposed):
    """Of four matrices of 8 x 8, one row after the other: the places of the two elements that lanes get in a register. The
    address of a row is that of the lane with its number."""
    if transposed:
        first = 64 * register + LANES % 4 * 16 + LANES // 4
        return first, first + 8
    first = 64 * register + LANES * 2
    return first, first + 1
