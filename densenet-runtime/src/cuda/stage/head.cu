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

// The maps of some classes: the products of the last feature maps with the classifier's rows of these
// classes. With the bias, the mean of a class's map is its logit. Images x `wanted` x PIXELS. A warp
// for each value, whose lanes read adjacent channels.
extern "C" __global__ void __launch_bounds__(THREADS) class_maps(
    const store_t *x, const float *scale, const float *shift, const float *weight, const unsigned *classes, float *maps,
    int wanted, int batch) {
    int lane = threadIdx.x % 32;
    long long i = (long long)blockIdx.x * (THREADS / 32) + threadIdx.x / 32, of = i / PIXELS;
    if (of >= (long long)batch * wanted) return;
    const store_t *from = x + (of / wanted * PIXELS + i % PIXELS) * CHANNELS;
    const float *row = weight + (size_t)classes[of] * CHANNELS;
    float sum = 0.0f;
    for (int c = lane; c < CHANNELS; c += 32) sum = fmaf(relu(fmaf(from[c], scale[c], shift[c])), row[c], sum);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (lane == 0) maps[i] = sum;
}

// Each thread's share of a sum or maximum, combined in the same order by all threads of a block.
__device__ __forceinline__ double all(double *sums, double own, bool largest) {
    __syncthreads();
    sums[threadIdx.x] = own;
    __syncthreads();
    double total = sums[0];
    for (int i = 1; i < REDUCTION_THREADS; ++i) total = largest ? (sums[i] > total ? sums[i] : total) : total + sums[i];
    return total;
}

// A step whose loss is not finite is marked by all blocks that find it, with the same value.
__device__ __forceinline__ void check_loss(double loss, Scalars *scalars, int training) {
    if (training && loss - loss != 0) scalars->broken = 1.0f;
}

// Cross-entropy of the softmax, with label smoothing: one block per image. A block computes the
// image's loss, whether its class is the first and whether it is among the first five, and in
// training the gradient of the mean loss, times the step's scale. The target is the image's label;
// with `dense` it is the probability of each class, and the label is the most probable class.
// `weights` has a weight for each class, `divisor` is what the mean is over, and `results` is
// batch x 3. `gradient` may be where `targets` are. It computes in f64, since batch x classes is
// little work.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) cross_entropy(
    const float *logits, const unsigned *labels, const float *targets, const float *weights, const float *divisor,
    float *gradient, double *results, Scalars *scalars, int dense, int training) {
    __shared__ double sums[REDUCTION_THREADS];
    int t = threadIdx.x, b = blockIdx.x;
    const float *z = logits + (size_t)b * CLASSES, *probabilities = targets + (size_t)b * CLASSES;
    int label;
    if (dense) {
        double own = -1, first = CLASSES;
        for (int k = t; k < CLASSES; k += REDUCTION_THREADS) own = probabilities[k] > own ? probabilities[k] : own;
        double most = all(sums, own, true);
        for (int k = t; k < CLASSES; k += REDUCTION_THREADS) first = probabilities[k] == most && k < first ? k : first;
        label = (int)-all(sums, -first, true);
    } else {
        label = labels[b];
    }
    double smoothing = training ? scalars->smoothing : 0.0f;
    auto weighted = [&](int k) {
        double own = dense ? (double)probabilities[k] : (double)(k == label);
        return weights[k] * ((1.0 - smoothing) * own + smoothing / CLASSES);
    };
    double own = -INFINITE;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) own = z[k] > own ? z[k] : own;
    double highest = all(sums, own, true);
    double exponentials = 0, below = 0;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) {
        exponentials += exp((double)z[k] - highest);
        below += z[k] < z[label];
        below -= z[k] != z[k] ? 6 : 0;
    }
    double log_total = log(all(sums, exponentials, false)) + highest;
    // As in `Outcome::count`, ties count as wrong. A logit that is NaN subtracts 6, so that nothing
    // is right.
    double not_below = CLASSES - all(sums, below, false);
    double loss = 0, mass = 0;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) {
        loss += weighted(k) * (log_total - z[k]);
        mass += weighted(k);
    }
    double share = *divisor > 0.0f ? 1.0 / *divisor : 0.0;
    loss = share * all(sums, loss, false);
    mass = all(sums, mass, false);
    if (t == 0) {
        results[3 * b] = loss;
        check_loss(loss, scalars, training);
        results[3 * b + 1] = not_below == 1;
        results[3 * b + 2] = not_below <= 5;
    }
    if (!training) return;
    share *= scalars->scale;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS)
        gradient[(size_t)b * CLASSES + k] = (float)(share * (mass * exp((double)z[k] - log_total) - weighted(k)));
}

__device__ __forceinline__ double softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(x > 0 ? -x : x)); }

__device__ __forceinline__ double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// Binary cross-entropy towards independent targets, where NaN is unknown: one block per image. A
// block computes the image's loss, how many decisions at a logit of 0 are right, how many targets
// are known, and in training the gradient, as above. `weights` has a weight for each class that
// applies. An unknown target has the factor 0 and is not left out: if its logit is not finite,
// neither is the loss.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) binary_cross_entropy(
    const float *logits, const float *targets, const float *weights, const float *divisor, float *gradient,
    double *results, Scalars *scalars, int training) {
    __shared__ double sums[REDUCTION_THREADS];
    int t = threadIdx.x, b = blockIdx.x;
    const float *z = logits + (size_t)b * CLASSES, *target = targets + (size_t)b * CLASSES;
    auto yes = [&](int k) {
        double weight = weights[k];
        return target[k] == target[k] ? weight * target[k] : 0.0;
    };
    auto no = [&](int k) { return target[k] == target[k] ? 1.0 - target[k] : 0.0; };
    double loss = 0, right = 0, known = 0;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS) {
        loss += yes(k) * softplus(-(double)z[k]) + no(k) * softplus(z[k]);
        if (target[k] != target[k]) continue;
        known += 1;
        right += z[k] == z[k] && (z[k] >= 0.0f) == (target[k] >= 0.5f);
    }
    double share = *divisor > 0.0f ? 1.0 / *divisor : 0.0;
    loss = share * all(sums, loss, false);
    right = all(sums, right, false);
    known = all(sums, known, false);
    if (t == 0) {
        results[3 * b] = loss;
        check_loss(loss, scalars, training);
        results[3 * b + 1] = right;
        results[3 * b + 2] = known;
    }
    if (!training) return;
    share *= scalars->scale;
    for (int k = t; k < CLASSES; k += REDUCTION_THREADS)
        gradient[(size_t)b * CLASSES + k] = (float)(share * (no(k) * sigmoid(z[k]) - yes(k) * sigmoid(-(double)z[k])));
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
