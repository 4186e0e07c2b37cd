// What the tensor cores do for a warp, computed once for all its lanes: the fragments are those of the
// PTX manual, a lane being 4 g + t.
#pragma once
#include "fibers.hpp"

namespace emulated {
// mma.m16n8k16: lane has a (16 x 16) of rows g, g + 8 and depths 2t, 2t + 8 (and the next of each), b
// (16 x 8) of the same depths and column g, d (16 x 8) of rows g, g + 8 and columns 2t, 2t + 1.
struct Fragments { unsigned a[4], b[2]; float d[4]; };

inline float of_bf16(unsigned bits) {
    bits <<= 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Sums in the order of the depth, each product and each sum rounded.
inline void multiply(Slot *slots) {
    typedef float Row __attribute__((vector_size(32)));
    float a[16][16];
    alignas(32) float b[16][8], d[16][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
        unsigned g = lane / 4, t = lane % 4 * 2;
        Fragments own;
        memcpy(&own, slots[lane].bytes, sizeof own);
        for (unsigned half = 0; half < 2; ++half) {
            for (unsigned i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 8 + half] = of_bf16(own.a[i] >> 16 * half & 0xffff);
            for (unsigned i = 0; i < 2; ++i) b[t + i * 8 + half][g] = of_bf16(own.b[i] >> 16 * half & 0xffff);
            for (unsigned i = 0; i < 2; ++i) d[g + i * 8][t + half] = own.d[2 * i + half];
        }
    }
    for (unsigned row = 0; row < 16; ++row) {
        Row sum, line;
        memcpy(&sum, d[row], sizeof sum);
        for (unsigned k = 0; k < 16; ++k) {
            memcpy(&line, b[k], sizeof line);
            sum += a[row][k] * line;
        }
        memcpy(d[row], &sum, sizeof sum);
    }
    for (unsigned lane = 0; lane < 32; ++lane)
        for (unsigned i = 0; i < 4; ++i)
            memcpy(slots[lane].bytes + offsetof(Fragments, d) + 4 * i, &d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2], 4);
}

inline void mma_m16n8k16_bf16(int line, float *d, const unsigned *a, const unsigned *b) {
    Fragments own;
    memcpy(own.a, a, sizeof own.a), memcpy(own.b, b, sizeof own.b), memcpy(own.d, d, sizeof own.d);
    const Slot *slots = block.meet(line, &own, sizeof own, multiply);
    memcpy(d, slots[context.lane].bytes + offsetof(Fragments, d), sizeof own.d);
}

// ldmatrix.x4: lane has the address of row lane % 8 of matrix lane / 8, and receives from each matrix the
// elements 2t and 2t + 1 of row g; transposed, of column g.
template <bool TRANSPOSED> void load_matrices(Slot *slots) {
    uint16_t rows[32][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
        const void *from;
        memcpy(&from, slots[lane].bytes, sizeof from);
        block.tell_lane(lane);
        if ((uintptr_t)from % 16) context.refuse("loads or stores a vector that is not aligned");
        memcpy(rows[lane], from, 16);
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        unsigned g = lane / 4, t = lane % 4 * 2, into[4];
        for (unsigned i = 0; i < 4; ++i)
            into[i] = TRANSPOSED ? rows[8 * i + t][g] | unsigned(rows[8 * i + t + 1][g]) << 16
                                 : rows[8 * i + g][t] | unsigned(rows[8 * i + g][t + 1]) << 16;
        memcpy(slots[lane].bytes, into, sizeof into);
    }
}

inline void ldmatrix_x4(int line, bool transposed, unsigned *into, const void *row) {
    const Slot *slots = block.meet(line, &row, sizeof row, transposed ? load_matrices<true> : load_matrices<false>);
    memcpy(into, slots[context.lane].bytes, 16);
}
} // namespace emulated
