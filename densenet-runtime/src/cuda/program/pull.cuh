// The backward pass through ReLU and the affine part of BN, for a tile of the gradient after them.
//
//     masked = scale * x + shift > 0 ? d : 0
//     into (+)= factor * masked;  sums of masked and of masked * (x - mean) for beta and gamma
//
// Each value takes 2 or 3 reads and 1 write. The sums go to partial[tile][channel][2].

struct Norm {
    const float *scale, *shift, *mean;
};

// The coefficients of a vector of channels.
struct Affine {
    Values scale, shift, mean;
    __device__ __forceinline__ static Affine of(const Norm &norm, int c) {
        return {floats_at(norm.scale + c), floats_at(norm.shift + c), floats_at(norm.mean + c)};
    }
};

// A thread's sums over its columns of the masked gradient.
struct Masked {
    Values bias, scale;
    __device__ __forceinline__ Masked() : bias(), scale() {}
    // Adds a gradient after the ReLU of z. Returns it masked.
    __device__ __forceinline__ float add(int i, float z, float d, float deviation) {
        float masked = z > 0.0f ? d : 0.0f;
        bias[i] += masked;
        scale[i] = fmaf(masked, deviation, scale[i]);
        return masked;
    }
    // Makes sums with the values themselves those with their deviations from `mean`.
    __device__ __forceinline__ void about(const Values &mean) {
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) scale[i] = fmaf(-mean[i], bias[i], scale[i]);
    }
    // Adds up the threads of each column, and writes the sums of `count` columns, from channel
    // `first` on, as those of a tile. Overwrites the stage, which is not read any more.
    template <int M, int N>
    __device__ __forceinline__ void put(Stage<M, N> &stage, int count, int first, int channels, int tile, float *partial) const {
        constexpr int LINES = Stage<M, N>::ACROSS;
        static_assert(2 * LINES <= M, "both sums of all threads find room");
        keep<LINES, N>(stage.value, stage.own_row(), stage.own_column());
        __syncthreads();
        add_up<LINES, N>(stage.value, count, first, channels, tile, partial);
    }
    // The two halves of it: each of the LINES threads that share a column keeps its sums in a line
    // of its own, of 2 LINES; and after a barrier the lines are added up.
    template <int LINES, int N> __device__ __forceinline__ void keep(float (*lines)[N + 4], int line, int column) const {
        put_floats(&lines[line][column], scale);
        put_floats(&lines[LINES + line][column], bias);
    }
    template <int LINES, int N>
    __device__ __forceinline__ static void add_up(const float (*lines)[N + 4], int count, int first, int channels, int tile, float *partial) {
        // Two sums of each column.
        for (int i = threadIdx.x; i < 2 * N; i += THREADS) {
            int which = i / N, c = i % N;
            if (c >= count) continue;
            float sum = 0.0f;
            for (int own = 0; own < LINES; ++own) sum += lines[which * LINES + own][c];
            partial[((size_t)tile * channels + first + c) * 2 + which] = sum;
        }
    }
};

// `pixel(row)` is the pixel of a row, negative if the row has none; `d(row, column)` is its gradient;
// `store(pixel, channel, masked)` writes it. Works on `count` channels from `first` on.
template <int M, int N, class Pixel, class Gradient, class Store>
__device__ __forceinline__ void pull(Stage<M, N> &stage, const Norm &norm, const store_t *x, int stride, int first, int count,
                                     int channels, float *partial, Pixel pixel, Gradient d, Store store) {
    int column = stage.own_column(), c = first + column;
    Masked own;
    if (column < count) {
        Affine affine = Affine::of(norm, c);
        for (int row = stage.own_row(); row < M; row += stage.ACROSS) {
            long long p = pixel(row);
            if (p < 0) continue;
            Pack values = pack_at(x + p * stride + c);
            Values masked = d(row, column);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i)
                masked[i] = own.add(i, fmaf(values[i], affine.scale[i], affine.shift[i]), masked[i], values[i] - affine.mean[i]);
            store(p, c, masked);
        }
    }
    // The stage may hold the gradient.
    __syncthreads();
    own.put(stage, count, first, channels, blockIdx.x, partial);
}
