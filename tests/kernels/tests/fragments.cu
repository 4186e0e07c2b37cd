// A product of one warp, and fragments as they come from shared memory, after product.cuh.

// Registers of a lane: four of a, two of b; four sums.
extern "C" __global__ void warp_product(const unsigned *a, const unsigned *b, float *d) {
    int lane = threadIdx.x;
    unsigned rows[4], columns[2];
    float sums[4] = {};
    for (int i = 0; i < 4; ++i) rows[i] = a[4 * lane + i];
    for (int i = 0; i < 2; ++i) columns[i] = b[2 * lane + i];
    mma_m16n8k16_bf16(sums, rows, columns);
    for (int i = 0; i < 4; ++i) d[4 * lane + i] = sums[i];
}

// Four matrices of 8 x 8, one after the other.
extern "C" __global__ void fragments(const store_t *matrices, unsigned *plain, unsigned *transposed) {
    __shared__ union { Pack aligned[32]; store_t values[256]; } shared;
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) shared.values[i].bits = matrices[i].bits;
    __syncthreads();
    unsigned own[4];
    ldmatrix_x4<false>(own, shared.values + 8 * lane);
    for (int i = 0; i < 4; ++i) plain[4 * lane + i] = own[i];
    ldmatrix_x4<true>(own, shared.values + 8 * lane);
    for (int i = 0; i < 4; ++i) transposed[4 * lane + i] = own[i];
}
