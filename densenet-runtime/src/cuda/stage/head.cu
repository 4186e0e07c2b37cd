// The last layers: BN, ReLU, global average pool, classifier; and the loss.
//
//     features[b][c] = mean over pixels of relu(scale[c] * x[p][c] + shift[c])
//     logits = features * weight^T + bias
//
// The pools pass the last block's buffer once each; the products are small.

// One feature for each thread, so that neighbouring threads read neighbouring channels. Images x
// CHANNELS.
extern "C" __global__ void head_pool(const store_t *x, const float *scale, const float *shift, float *features, int batch) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= batch * CHANNELS) return;
    int c = i % CHANNELS, b = i / CHANNELS;
    float sum = 0.0f;
    for (int p = 0; p < PIXELS; ++p) sum += relu(fmaf(x[((size_t)b * PIXELS + p) * CHANNELS + c], scale[c], shift[c]));
    features[i] = sum * (1.0f / PIXELS);
}

// A matrix of `rows` x `columns`: lines are rows, elements columns.
template <bool ALONG> struct Matrix {
    static constexpr bool ALONG_DEPTH = ALONG, PLAIN = false;
    static constexpr int SPAN = 1;
    typedef int Place;
    typedef float Fetched;
    const float *values;
    int rows, columns, first_row, first_column;
    __device__ __forceinline__ Place place(int line) const { return first_row + line; }
    __device__ __forceinline__ Fetched fetch(Place row, int element) const {
        int column = first_column + element;
        return row < rows && column < columns ? values[(size_t)row * columns + column] : 0.0f;
    }
    __device__ __forceinline__ float made(Fetched fetched, int) const { return fetched; }
};
template <bool A, bool B> using Products = Pieces<ROWS, COLUMNS, Matrix<A>, Matrix<B>>;

// Grid: tiles of images, tiles of classes.
extern "C" __global__ void __launch_bounds__(THREADS) classify(
    const float *features, const float *weight, const float *bias, float *logits, int batch) {
    __shared__ Products<true, true> pieces;
    int image0 = blockIdx.x * ROWS, class0 = blockIdx.y * COLUMNS;
    Sums<ROWS, COLUMNS> sums;
    product(pieces, sums, 0, CHANNELS, Matrix<true>{features, batch, CHANNELS, image0, 0},
            Matrix<true>{weight, CLASSES, CHANNELS, class0, 0});
    #pragma unroll
    for (int i = 0; i < sums.COUNT; ++i) {
        int b = image0 + sums.row(i), k = class0 + sums.column(i);
        if (b < batch && k < CLASSES) logits[(size_t)b * CLASSES + k] = sums.value[i] + bias[k];
    }
}

// Cross-entropy of the softmax, with label smoothing, one image for each block: its loss, whether
// its class is the first or among the first five, and the gradient of the mean loss, times the
// step's scale. `results` is batch x 3. It is computed in f64, as it is little work: batch x
// classes.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) cross_entropy(
    const float *logits, const unsigned *labels, float *gradient, double *results, Scalars *scalars, int batch,
    int training) {
    __shared__ double sums[REDUCTION_THREADS];
    int t = threadIdx.x, b = blockIdx.x;
    const float *z = logits + (size_t)b * CLASSES;
    unsigned label = labels[b];
    // Adds up each thread's share of a sum or maximum. All threads use the same order.
    auto all = [&](double own, bool largest) {
        __syncthreads();
        sums[t] = own;
        __syncthreads();
        double total = sums[0];
        for (int i = 1; i < REDUCTION_THREADS; ++i) total = largest ? (sums[i] > total ? sums[i] : total) : total + sums[i];
        return total;
    };
    double own = -INFINITE;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) own = z[k] > own ? z[k] : own;
    double highest = all(own, true);
    double exponentials = 0, plain = 0, below = 0;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) {
        exponentials += exp((double)z[k] - highest);
        plain += z[k];
        below += z[k] < z[label];
        below -= z[k] != z[k] ? 6 : 0;
    }
    double log_total = log(all(exponentials, false)) + highest;
    double mean = all(plain, false) / CLASSES;
    // `Outcome::count`: ties count as wrong, and if any logit is NaN, which subtracts 6, nothing is
    // right.
    double not_below = CLASSES - all(below, false);
    double smoothing = training ? scalars->smoothing : 0.0f;
    if (t == 0) {
        double target = (1.0 - smoothing) * z[label] + smoothing * mean;
        double loss = (log_total - target) / batch;
        results[3 * b] = loss;
        if (training && loss - loss != 0) scalars->broken = 1.0f; // by whichever blocks, the same
        results[3 * b + 1] = not_below == 1;
        results[3 * b + 2] = not_below <= 5;
    }
    if (!training) return;
    double share = (double)scalars->scale / batch;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) {
        double target = (k == (int)label ? 1.0 - smoothing : 0.0) + smoothing / CLASSES;
        gradient[(size_t)b * CLASSES + k] = (float)(share * (exp((double)z[k] - log_total) - target));
    }
}

// Adds to the gradients of weight and bias. Grid: tiles of channels, tiles of classes.
extern "C" __global__ void __launch_bounds__(THREADS) classify_weight(
    const float *dlogits, const float *features, float *dweight, float *dbias, int batch) {
    __shared__ Products<false, false> pieces;
    int channel0 = blockIdx.x * COLUMNS, class0 = blockIdx.y * ROWS;
    Sums<ROWS, COLUMNS> sums;
    product(pieces, sums, 0, batch, Matrix<false>{dlogits, batch, CLASSES, 0, class0},
            Matrix<false>{features, batch, CHANNELS, 0, channel0});
    #pragma unroll
    for (int i = 0; i < sums.COUNT; ++i) {
        int k = class0 + sums.row(i), c = channel0 + sums.column(i);
        if (k < CLASSES && c < CHANNELS) dweight[(size_t)k * CHANNELS + c] += sums.value[i];
    }
    int k = class0 + threadIdx.x;
    if (blockIdx.x > 0 || threadIdx.x >= ROWS || k >= CLASSES) return;
    float sum = 0.0f;
    for (int b = 0; b < batch; ++b) sum += dlogits[(size_t)b * CLASSES + k];
    dbias[k] += sum;
}

// The gradient of the features. Grid: tiles of images, tiles of channels.
extern "C" __global__ void __launch_bounds__(THREADS) classify_features(
    const float *dlogits, const float *weight, float *dfeatures, int batch) {
    __shared__ Products<true, false> pieces;
    int image0 = blockIdx.x * ROWS, channel0 = blockIdx.y * COLUMNS;
    Sums<ROWS, COLUMNS> sums;
    product(pieces, sums, 0, CLASSES, Matrix<true>{dlogits, batch, CLASSES, image0, 0},
            Matrix<false>{weight, CLASSES, CHANNELS, 0, channel0});
    #pragma unroll
    for (int i = 0; i < sums.COUNT; ++i) {
        int b = image0 + sums.row(i), c = channel0 + sums.column(i);
        if (b < batch && c < CHANNELS) dfeatures[(size_t)b * CHANNELS + c] = sums.value[i];
    }
}

// The backward pass through the pool, ReLU and the affine part of BN: sets g to gamma times the
// masked gradient. Grid: tiles of pixels, tiles of channels.
extern "C" __global__ void __launch_bounds__(THREADS) head_pull(
    const float *dfeatures, const store_t *x, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *g, float *partial, int batch) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, channel0 = blockIdx.y * COLUMNS, pixels = batch * PIXELS;
    pull(stage, Norm{scale, shift, mean}, x, CHANNELS, channel0, min(COLUMNS, CHANNELS - channel0), CHANNELS, partial,
         [&](int row) -> long long { return row0 + row < pixels ? row0 + row : -1; },
         [&](int row, int column) {
             Values d = floats_at(dfeatures + (size_t)((row0 + row) / PIXELS) * CHANNELS + channel0 + column);
#pragma unroll
             for (int i = 0; i < VECTOR; ++i) d[i] *= 1.0f / PIXELS;
             return d;
         },
         [&](long long p, int c, Values masked) {
             Values factor = parameters_at(gamma + c);
#pragma unroll
             for (int i = 0; i < VECTOR; ++i) masked[i] *= factor[i];
             put_pack(g + p * CHANNELS + c, Pack::of<false>(masked));
         });
}
