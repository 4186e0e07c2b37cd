// Convolution of a dense layer: BN and ReLU as the operand is loaded, statistics as the result
// is written. Of side KERNEL (1 or 3), stride 1, zeros around; on maps of HEIGHT x WIDTH.
//
//     out[p][n] = sum over taps t, channels c of relu(scale[c] * in[p + t][c] + shift[c]) * w[n][c][t]
//
// `in` is a prefix of a block's buffer, or bottleneck maps: pixels x IN_STRIDE. `out` is
// pixels x OUT_STRIDE, columns from `column` on. How many channels are read grows from layer to
// layer, so that it is an argument: one program serves all layers of a block.
//
// P pixels, C channels, N = MAPS: 2 P C N KERNEL^2 operations; reads P C values (KERNEL^2 times,
// mostly from cache), writes P N. The way back is in pointwise.cu and spatial.cu. BN and ReLU of
// the operand are never stored.

constexpr int AREA = HEIGHT * WIDTH, TAPS = KERNEL * KERNEL, PADDING = KERNEL / 2;

struct Pixel { int p, y, x; };
__device__ __forceinline__ Pixel pixel_of(int p, int pixels) {
    if (KERNEL == 1) return {p < pixels ? p : -1, 0, 0};
    int inside = p % AREA;
    return {p < pixels ? p : -1, inside / WIDTH, inside % WIDTH};
}
// The pixel under a tap, or above it on the way back (`sign` -1); negative in the padding.
__device__ __forceinline__ int under(Pixel pixel, int tap, int sign) {
    if (KERNEL == 1) return pixel.p;
    int dy = sign * (tap / KERNEL - PADDING), dx = sign * (tap % KERNEL - PADDING);
    int y = pixel.y + dy, x = pixel.x + dx;
    bool inside = pixel.p >= 0 && y >= 0 && y < HEIGHT && x >= 0 && x < WIDTH;
    return inside ? pixel.p + dy * WIDTH + dx : -1;
}

// relu(scale * in + shift): lines are pixels, elements channels. Of all taps, or of `only` one.
template <bool ALONG> struct Normalised {
    static constexpr bool ALONG_DEPTH = ALONG;
    typedef Pixel Place;
    const store_t *in;
    const float *scale, *shift;
    int channels, pixels, first_pixel, first_channel, only;
    __device__ Place place(int line) const { return pixel_of(first_pixel + line, pixels); }
    __device__ float load(Place place, int tap, int element) const {
        int c = first_channel + element, p = under(place, ALONG ? tap : only, 1);
        return p >= 0 && c < channels ? relu(fmaf(in[(size_t)p * IN_STRIDE + c], scale[c], shift[c])) : 0.0f;
    }
};

// The gradient of the output, MAPS side by side: of the pixels above the taps, or as it is.
template <bool ALONG> struct Above {
    static constexpr bool ALONG_DEPTH = ALONG;
    typedef Pixel Place;
    const grad_t *dout;
    int pixels, first_pixel, first_map;
    __device__ Place place(int line) const { return pixel_of(first_pixel + line, pixels); }
    __device__ float load(Place place, int tap, int element) const {
        int n = first_map + element, p = ALONG ? under(place, tap, -1) : place.p;
        return p >= 0 && n < MAPS ? dout[(size_t)p * MAPS + n] : 0.0f;
    }
};

// The weight, maps x channels x taps: lines are maps, elements channels.
template <bool ALONG> struct Weight {
    static constexpr bool ALONG_DEPTH = ALONG;
    typedef int Place;
    const float *weight;
    int channels, first_map, first_channel;
    __device__ Place place(int line) const { return first_map + line; }
    __device__ float load(Place n, int tap, int element) const {
        int c = first_channel + element;
        return n < MAPS && c < channels ? weight[((size_t)n * channels + c) * TAPS + tap] : 0.0f;
    }
};

// Grid: tiles of pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS) convolution_forward(
    const store_t *in, const float *scale, const float *shift, const float *weight, store_t *out, float *partial,
    const Scalars *scalars, int column, int site, int pixels, int channels, int training) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pixels - row0);
    Sums sums;
    Normalised<true> a = {in, scale, shift, channels, pixels, row0, 0, 0};
    Weight<true> b = {weight, channels, map0, 0};
    product(tile, sums, TAPS, 0, channels, a, b);
    sums.stage(stage);
    __syncthreads();
    Dropout dropout(scalars, site);
    int map = threadIdx.x % COLUMNS, n = map0 + map;
    for (int row = threadIdx.x / COLUMNS; row < rows && n < MAPS; row += THREADS / COLUMNS) {
        size_t p = row0 + row;
        float value = stage.value[row][map] * dropout.factor(p * MAPS + n);
        stage.value[row][map] = out[p * OUT_STRIDE + column + n] = value;
    }
    __syncthreads();
    if (training) column_moments(stage, rows, min(COLUMNS, MAPS - map0), MAPS, map0, partial);
}
