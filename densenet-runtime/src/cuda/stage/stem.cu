// The first layers: a convolution of the images (side KERNEL, stride STEP), and for ImageNet BN,
// ReLU and a 3x3 max pool of stride 2.
//
//     convolved[p][m] = sum over the kernel's pixels and channels of image * w
//     out[q][m] = max over the 9 pixels p under q of relu(scale[m] * convolved[p][m] + shift[m])
//
// The convolution is a product over patches, K = KERNEL^2 CHANNELS elements for each pixel; the
// weight is maps x channels x KERNEL x KERNEL. Its kernels are in patches.cu and strips.cu. The pool
// stores in a byte which of its nine pixels it chose. In the backward pass each pixel gathers from
// the (at most four) pooled pixels that may have chosen it, so that no two threads add to the same
// value.

constexpr int CONVOLVED_HEIGHT = (HEIGHT + STEP - 1) / STEP, CONVOLVED_WIDTH = (WIDTH + STEP - 1) / STEP;
constexpr int AREA = CONVOLVED_HEIGHT * CONVOLVED_WIDTH, PATCH = KERNEL * KERNEL * CHANNELS;
constexpr int POOLED_HEIGHT = (CONVOLVED_HEIGHT + 1) / 2, POOLED_WIDTH = (CONVOLVED_WIDTH + 1) / 2;
// The byte of a pooled pixel if the ReLU cut off all nine values.
constexpr unsigned char NONE = 255;

// The pool's choices for a vector of maps.
// A byte for each map, stored in words, because ptxas puts bytes into local memory.
struct alignas(VECTOR) Choices {
#if VECTOR % 4
    unsigned char of[VECTOR];
    __device__ __forceinline__ unsigned operator[](int i) const { return of[i]; }
    __device__ __forceinline__ void put(int i, unsigned place) { of[i] = place; }
#else
    unsigned of[VECTOR / 4] = {};
    __device__ __forceinline__ unsigned operator[](int i) const { return of[i / 4] >> i % 4 * 8 & 255; }
    __device__ __forceinline__ void put(int i, unsigned place) { of[i / 4] |= place << i % 4 * 8; }
#endif
    // Values of `from` where this place was chosen, and of `others` elsewhere.
    __device__ __forceinline__ Pack select(unsigned place, const Pack &from, const Pack &others) const {
        Pack pack;
#if !BF16
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) pack.v[i] = (*this)[i] == place ? from.v[i] : others.v[i];
#elif VECTOR == 1
        pack.bits = (*this)[0] == place ? from.bits : others.bits;
#else
#pragma unroll
        for (int i = 0; i < VECTOR / 2; ++i) {
            unsigned other = unlike(place, i);
            pack.words[i] = from.words[i] & ~other | others.words[i] & other;
        }
#endif
        return pack;
    }
#if BF16 && VECTOR > 1
    // All bits of the halves of a word of bf16 whose choice is another one. Four bytes are compared
    // at once: choices are small or NONE, so an addition to seven bits sets the eighth where there
    // is a difference, and is carried no further.
    __device__ __forceinline__ unsigned unlike(unsigned place, int word) const {
#if VECTOR % 4
        return ((*this)[2 * word] == place ? 0 : 0xffffu) | ((*this)[2 * word + 1] == place ? 0 : 0xffff0000u);
#else
        unsigned differing = ((of[word / 2] ^ place * 0x01010101u) & 0x7f7f7f7fu) + 0x7f7f7f7fu;
#ifdef CUDA_EMULATOR
        unsigned two = differing >> word % 2 * 16;
        return (two & 0x80 ? 0xffffu : 0) | (two & 0x8000 ? 0xffff0000u : 0);
#else
        unsigned halves;
        // The signs of two bytes, twice each.
        asm("prmt.b32 %0, %1, 0, %2;" : "=r"(halves) : "r"(differing), "r"(word % 2 ? 0xbbaa : 0x9988));
        return halves;
#endif
#endif
    }
#endif
};
__device__ __forceinline__ Choices choices_at(const unsigned char *at) { return *reinterpret_cast<const Choices *>(ALIGNED(at, VECTOR)); }

// The position of element k of a patch (pixel by pixel) in a weight.
__device__ __forceinline__ int place_in_weight(int k) { return k % CHANNELS * KERNEL * KERNEL + k / CHANNELS; }

// What undoes BN for a vector of maps: scale * masked + slope * x + shift. `undo` is 4 x MAPS, and
// has a shift for x without its mean.
struct Undo {
    Values scale, slope, shift;
    __device__ __forceinline__ static Undo of(const float *undo, int m) {
        if (!POOL) return {};
        Undo own = {floats_at(undo + m), floats_at(undo + MAPS + m), floats_at(undo + 2 * MAPS + m)};
        Values mean = floats_at(undo + 3 * MAPS + m);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) own.shift[v] = fmaf(-mean[v], own.slope[v], own.shift[v]);
        return own;
    }
};

// The gradient of the convolution's maps: lines are pixels, elements maps. For CIFAR it is `dout`;
// for ImageNet it is gathered through the pool, and BN is undone with `undo` (4 x MAPS).
struct Gradient {
    static constexpr bool ALONG_DEPTH = false, PLAIN = false;
    static constexpr int SPAN = VECTOR;
    typedef int Place;
    typedef Pack Fetched;
    const grad_t *dout;
    const unsigned char *choice;
    const store_t *convolved;
    const float *undo;
    int pixels, first_map;
    __device__ __forceinline__ Place place(int line) const { return line; }
    __device__ __forceinline__ Pack made(const Fetched &fetched, int) const { return fetched; }
    // It is masked by the ReLU: if that cut off all values, the pool chose none.
    __device__ __forceinline__ Values masked(int p, int m) const {
        int image = p / AREA, inside = p % AREA, y = inside / CONVOLVED_WIDTH, x = inside % CONVOLVED_WIDTH;
        Values sum = {};
        // Pooled row i covers rows 2 i - 1 to 2 i + 1, so a pixel is in one or two rows, and
        // likewise columns. The pixels of a row are loaded together; all four would need too many
        // registers.
        int i = y / 2, j = x / 2;
        bool below = y % 2 && i + 1 < POOLED_HEIGHT, right = x % 2 && j + 1 < POOLED_WIDTH;
#pragma unroll 1
        for (int row = 0; row <= below; ++row) {
            size_t q = (((size_t)image * POOLED_HEIGHT + i + row) * POOLED_WIDTH + j) * MAPS + m, next = q + MAPS;
            int place = (y % 2 + 1 - 2 * row) * 3 + x % 2 + 1;
            // What does not exist has no gradient.
            Choices own = choices_at(choice + q), others = right ? choices_at(choice + next) : Choices{};
            Pack d = pack_at(dout + q), e = right ? pack_at(dout + next) : Pack::zeros();
            d = own.select(place, d, Pack::zeros()), e = others.select(place - 2, e, Pack::zeros());
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) sum[v] += d[v] + e[v];
        }
        return sum;
    }
    // `undo_of` is asked for what undoes BN when it is needed.
    template <class Of> __device__ __forceinline__ Pack at(int p, int m, Of undo_of) const {
#if POOL
        Pack x = pack_at(convolved + (size_t)p * MAPS + m);
        Values values = masked(p, m);
        Undo undo = undo_of();
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) values[v] = fmaf(values[v], undo.scale[v], fmaf(x[v], undo.slope[v], undo.shift[v]));
        return Pack::of<false>(values);
#else
        return pack_at(dout + (size_t)p * MAPS + m);
#endif
    }
    __device__ __forceinline__ Fetched fetch(Place p, int element) const {
        int m = first_map + element;
        return p < pixels && m < MAPS ? at(p, m, [&] { return Undo::of(undo, m); }) : Pack::zeros();
    }
};
