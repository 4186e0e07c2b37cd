// The way back through ReLU and the affine part of BN, for a tile of the gradient behind them.
//
//     masked = scale * x + shift > 0 ? d : 0
//     into (+)= factor * masked;  sums of masked and of masked * (x - mean) for beta and gamma
//
// Each value: 2 or 3 reads, 1 write. The sums go to partial[tile][channel][2].

struct Norm {
    const float *scale, *shift, *mean;
};

// A thread's sums of a column of the masked gradient.
struct Masked {
    float bias = 0.0f, scale = 0.0f;
    // A gradient behind the ReLU of z; returns it masked.
    __device__ float add(float z, float d, float deviation) {
        float masked = z > 0.0f ? d : 0.0f;
        bias += masked;
        scale = fmaf(masked, deviation, scale);
        return masked;
    }
    // Adds up the threads of each column and puts the sums of `count` columns, this thread's being
    // channel `c`, with those of a tile. All threads come here.
    __device__ void put(Stage &stage, int count, int c, int channels, int tile, float *partial) const {
        int column = threadIdx.x % COLUMNS;
        stage.quarter[0][threadIdx.x / COLUMNS][column] = scale;
        stage.quarter[1][threadIdx.x / COLUMNS][column] = bias;
        __syncthreads();
        if (threadIdx.x < count)
            for (int which = 0; which < 2; ++which) {
                const float(&q)[4][COLUMNS] = stage.quarter[which];
                partial[((size_t)tile * channels + c) * 2 + which] =
                    (q[0][column] + q[1][column]) + (q[2][column] + q[3][column]);
            }
    }
};

// `pixel(row)` is the pixel of a row, negative where there is none; `d(row, column)` its gradient;
// `store(pixel, channel, masked)` what is done with it. `count` channels from `first` on.
template <class Pixel, class Gradient, class Store>
__device__ void pull(Stage &stage, const Norm &norm, const store_t *x, int stride, int first, int count, int channels,
                     float *partial, Pixel pixel, Gradient d, Store store) {
    int column = threadIdx.x % COLUMNS, c = first + column;
    Masked own;
    if (column < count) {
        float s = norm.scale[c], t = norm.shift[c], mean = norm.mean[c];
        for (int row = threadIdx.x / COLUMNS; row < ROWS; row += THREADS / COLUMNS) {
            long p = pixel(row);
            if (p < 0) continue;
            float value = x[p * stride + c];
            store(p, c, own.add(fmaf(value, s, t), d(row, column), value - mean));
        }
    }
    own.put(stage, count, c, channels, blockIdx.x, partial);
}
