// Batch normalisation around the convolutions: statistics from tiles' moments, BN as one
// multiply-add a consumer, gradients of gamma and beta from tiles' sums, and BN undone.
//
//     scale = gamma / sqrt(variance + eps), shift = beta - mean * scale
//     dx = inverse * (g - mean(g) - xhat * mean(g * xhat))
//
// Small kernels over channels, but `finish` and `undo`, which pass pixels x channels once: 2 reads
// and 1 write a value.

// Mean, variance (biased) and inverse deviation of each channel, from its tiles' means and squared
// deviations, by Chan's rule in f64. Tiles have `rows` rows, the last what is left. Grid: channels.
extern "C" __global__ void __launch_bounds__(128) merge_moments(
    const float *partial, float *mean, float *variance, float *inverse, int tiles, int rows, int pixels, int channels) {
    __shared__ double counts[128], means[128], squares[128];
    int t = threadIdx.x, c = blockIdx.x;
    double n = 0, m = 0, s = 0;
    for (int tile = t; tile < tiles; tile += 128) {
        const float *from = partial + ((size_t)tile * channels + c) * 2;
        double count = min(rows, pixels - tile * rows), delta = from[0] - m, total = n + count;
        m += delta * count / total;
        s += from[1] + delta * delta * n * count / total;
        n = total;
    }
    counts[t] = n, means[t] = m, squares[t] = s;
    for (int half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (t < half && counts[t + half] > 0) {
            double count = counts[t + half], delta = means[t + half] - means[t], total = counts[t] + count;
            means[t] += delta * count / total;
            squares[t] += squares[t + half] + delta * delta * counts[t] * count / total;
            counts[t] = total;
        }
    }
    if (t == 0) {
        double v = squares[0] / counts[0];
        mean[c] = (float)means[0];
        variance[c] = (float)v;
        inverse[c] = (float)(1.0 / sqrt(v + EPSILON));
    }
}

// BN of a consumer: from the batch's statistics, which move its running ones, or from these.
// `running` has its means, then its variances. A thread a channel.
extern "C" __global__ void prepare(
    const float *gamma, const float *beta, const float *mean, const float *variance, const float *inverse,
    float *running, float *scale, float *shift, int channels, int pixels, int training) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    float m, s;
    if (training) {
        float unbiased = (float)pixels / (float)(max(pixels, 2) - 1), moving = (float)MOMENTUM;
        m = mean[c];
        s = gamma[c] * inverse[c];
        running[c] += moving * (m - running[c]);
        running[channels + c] += moving * (variance[c] * unbiased - running[channels + c]);
    } else {
        m = running[c];
        s = gamma[c] / sqrtf(running[channels + c] + (float)EPSILON);
    }
    scale[c] = s;
    shift[c] = beta[c] - m * s;
}

// Adds the tiles' sums to the gradients of gamma and beta, and to the sums that undoing BN needs:
// of g, and of g times the normalised value, where g has gamma in it. `add` 0: the first consumer.
// Grid: channels.
extern "C" __global__ void __launch_bounds__(128) merge_sums(
    const float *partial, const float *gamma, const float *inverse, float *dgamma, float *dbeta, float *plain,
    float *normalised, int tiles, int channels, int add) {
    __shared__ double slopes[128], biases[128];
    int t = threadIdx.x, c = blockIdx.x;
    double slope = 0, bias = 0;
    for (int tile = t; tile < tiles; tile += 128) {
        const float *from = partial + ((size_t)tile * channels + c) * 2;
        slope += from[0];
        bias += from[1];
    }
    slopes[t] = slope, biases[t] = bias;
    for (int half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) slopes[t] += slopes[t + half], biases[t] += biases[t + half];
    }
    if (t == 0) {
        float dscale = (float)(slopes[0] * inverse[c]), dbias = (float)biases[0];
        dgamma[c] += dscale;
        dbeta[c] += dbias;
        plain[c] = (add ? plain[c] : 0.0f) + gamma[c] * dbias;
        normalised[c] = (add ? normalised[c] : 0.0f) + gamma[c] * dscale;
    }
}

// What undoing BN multiplies and adds, for each channel: of g, of the deviation, and the rest.
struct Undo {
    float scale, slope, shift;
    __device__ Undo(float inverse, float gamma, float plain, float normalised, int pixels) {
        float share = 1.0f / (float)pixels;
        scale = inverse * gamma;
        slope = -inverse * inverse * normalised * share;
        shift = -inverse * plain * share;
    }
    __device__ float of(float g, float deviation) const { return fmaf(g, scale, fmaf(deviation, slope, shift)); }
};

// Undoes the BN of `count` columns of a block's buffer (from `first`, pixels x stride), whose
// consumers are all done: their gradient goes to `into` (pixels x count), with the mask of the
// dropout that the maps had. A thread a value.
extern "C" __global__ void finish(
    const grad_t *g, const store_t *x, const float *mean, const float *inverse, const float *plain,
    const float *normalised, grad_t *into, const Scalars *scalars, int stride, int first, int count, int pixels, int site) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)pixels * count) return;
    int c = first + i % count;
    size_t at = i / count * stride + c;
    Undo undo(inverse[c], 1.0f, plain[c], normalised[c], pixels);
    into[i] = undo.of(g[at], x[at] - mean[c]) * Dropout(scalars, site).factor(i);
}

// The same in place for bottleneck maps, whose g has no gamma yet: pixels x maps.
extern "C" __global__ void undo(
    grad_t *dy, const store_t *y, const float *mean, const float *inverse, const float *gamma, const float *plain,
    const float *normalised, const Scalars *scalars, int maps, int pixels, int site) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)pixels * maps) return;
    int c = i % maps;
    Undo undo(inverse[c], gamma[c], plain[c], normalised[c], pixels);
    dy[i] = undo.of(dy[i], y[i] - mean[c]) * Dropout(scalars, site).factor(i);
}

// The same as numbers, for a kernel that undoes as it loads: scale, slope, shift, mean, each maps.
extern "C" __global__ void undo_numbers(
    const float *mean, const float *inverse, const float *gamma, const float *plain, const float *normalised,
    float *into, int maps, int pixels) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= maps) return;
    Undo undo(inverse[c], gamma[c], plain[c], normalised[c], pixels);
    into[c] = undo.scale;
    into[maps + c] = undo.slope;
    into[2 * maps + c] = undo.shift;
    into[3 * maps + c] = mean[c];
}
