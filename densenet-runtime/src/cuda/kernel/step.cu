// What surrounds a step: the images' way in, gradients started, gradient descent.
// Each passes its values once, a thread a value.

// From channels x area, image by image, to area x channels.
extern "C" __global__ void images_from_nchw(const float *from, store_t *into, int channels, int area, int batch) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)batch * area * channels) return;
    size_t p = i / channels, c = i % channels;
    into[i] = from[(p / area * channels + c) * area + p % area];
}

// From bytes, pixels x channels; `norm` has the channels' means, then their deviations.
extern "C" __global__ void images_from_bytes(const unsigned char *from, const float *norm, store_t *into, int channels, int pixels) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)pixels * channels) return;
    int c = i % channels;
    into[i] = ((float)from[i] / 255.0f - norm[c]) / norm[channels + c];
}

// What a step starts with, unless it accumulates: zeros for gradients, and the running statistics
// kept, which are brought back where the loss is not finite. Those before such a step stay, whatever
// was started since.
extern "C" __global__ void start(
    float *gradient, const float *running, float *before, const Scalars *scalars, int count, int statistics) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (scalars->accumulate) return;
    if (i < count) gradient[i] = 0.0f;
    if (i < statistics && scalars->broken == 0.0f) before[i] = running[i];
}

// Stochastic gradient descent with momentum: reads 3 values, writes 2. Nothing changes where the
// loss that the gradient is of was not finite.
extern "C" __global__ void descend(
    float *parameters, float *momentum, const float *gradient, const Scalars *scalars, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || scalars->broken != 0.0f) return;
    float slope = gradient[i] + scalars->decay * parameters[i];
    float m = scalars->momentum * momentum[i] + slope;
    momentum[i] = m;
    parameters[i] -= scalars->rate * (scalars->nesterov ? slope + scalars->momentum * m : m);
}
