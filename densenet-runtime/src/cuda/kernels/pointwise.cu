// The way back through the 1x1 convolution of a dense layer, in one kernel: what it read, the
// wide end of a block, is passed once.
//
//     d[p][c] = sum over n of dout[p][n] w[n][c], masked by ReLU; into[p][c] += gamma[c] d[p][c]
//     share[n][c] = sum over p of dout[p][n] relu(scale[c] in[p][c] + shift[c])
//
// P pixels, C channels, N = MAPS: 4 P C N operations; reads `in`, `into` and `dout` (once for each
// tile of channels, mostly from cache), writes `into`: 3 P C + P N values.

// Tiles of maps that a block has the sums of.
constexpr int MAP_TILES = MAPS > 3 * ROWS ? 4 : (MAPS + ROWS - 1) / ROWS;

// The input behind BN and ReLU, where it is staged: lines are pixels, elements channels.
struct Staged {
    static constexpr bool ALONG_DEPTH = false;
    typedef int Place;
    const Stage &stage;
    __device__ Place place(int line) const { return line; }
    __device__ float load(Place row, int, int element) const { return stage.value[row][element]; }
};

// Each slice of pixels makes a share of the weight's gradient, slices x weight, in the weight's
// order, and of the sums for gamma and beta: partial[slice][channel][2]. Grid: tiles of channels,
// groups of MAP_TILES tiles of maps, slices of `length` pixels. The first group of maps has the
// gradient of the input besides.
extern "C" __global__ void __launch_bounds__(THREADS) convolution_back(
    const grad_t *dout, const float *weight, const store_t *in, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, float *share, int pixels, int channels, int length) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    int channel0 = blockIdx.x * COLUMNS, map0 = blockIdx.y * MAP_TILES * ROWS;
    int first = blockIdx.z * length, last = min(first + length, pixels);
    int column = threadIdx.x % COLUMNS, c = channel0 + column, count = min(COLUMNS, channels - channel0);
    bool pulls = map0 == 0;
    Masked masked;
    Sums gradient[MAP_TILES];
    for (int row0 = first; row0 < last; row0 += ROWS) {
        if (pulls) {
            Sums pulled;
            product(tile, pulled, 1, 0, MAPS, Above<true>{dout, last, row0, 0}, Weight<false>{weight, channels, 0, channel0});
            pulled.stage(stage);
            __syncthreads();
        }
        for (int row = threadIdx.x / COLUMNS; row < ROWS; row += THREADS / COLUMNS) {
            size_t p = row0 + row;
            float operand = 0.0f;
            if (row0 + row < last && column < count) {
                float value = in[p * IN_STRIDE + c], z = fmaf(value, scale[c], shift[c]);
                operand = relu(z);
                if (pulls) {
                    float d = masked.add(z, stage.value[row][column], value - mean[c]);
                    grad_t *at = into + p * IN_STRIDE + c;
                    *at = fmaf(gamma[c], d, *at);
                }
            }
            stage.value[row][column] = operand;
        }
        __syncthreads();
        // Unrolled, as below, so that the sums are in registers.
#pragma unroll
        for (int i = 0; i < MAP_TILES; ++i)
            product(tile, gradient[i], 1, 0, ROWS, Above<false>{dout, last, row0, map0 + i * ROWS}, Staged{stage});
    }
    if (pulls) masked.put(stage, count, c, channels, blockIdx.z, partial);
#pragma unroll
    for (int tile = 0; tile < MAP_TILES; ++tile)
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            int n = map0 + tile * ROWS + Sums::row(i), k = channel0 + Sums::column(i);
            if (n < MAPS && k < channels) share[((size_t)blockIdx.z * MAPS + n) * channels + k] = gradient[tile].value[i];
        }
}
