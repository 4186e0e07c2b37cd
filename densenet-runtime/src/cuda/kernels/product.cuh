// The product of two tiles, from operands that are computed as they are loaded.
//
//     sum[row][column] += a(row, k) * b(k, column)
//
// An operand is a struct with `place(line)`, what is known of a line of it (a pixel's
// coordinates), and `load(place, tap, element)`. Elements lie side by side in memory. In an
// operand ALONG_DEPTH, lines are rows (or columns) of the result and elements run along k; else
// lines run along k. `load` returns 0 beyond the operand's ends.
//
// Bytes: each block reads its rows of a and its columns of b once for each tile across, in pieces
// of DEPTH. Operations: 2 * ROWS * COLUMNS * DEPTH a piece, in f32 or, with BF16, by the tensor
// cores from bf16 operands with f32 sums.

constexpr int DEPTH = 16;

#if BF16
typedef unsigned short Operand;

// One warp: d (16 x 8, f32) += a (16 x 16, bf16) * b (16 x 8, bf16), in the fragments of the PTX
// manual (mma.m16n8k16): lane = 4 g + t has a of rows g, g + 8 and depths 2t, 2t + 8 (and the next
// of each), b of the same depths and column g, d of rows g, g + 8 and columns 2t, 2t + 1.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef CUDA_EMULATOR
    struct { unsigned a[4], b[2]; } own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const emulated::Slot *slots = emulated_context->meet(__LINE__, ~0u, &own, sizeof own);
    auto value = [&](int lane, int reg, int half) {
        unsigned bits;
        memcpy(&bits, slots[lane].bytes + 4 * reg, 4);
        return widened(half ? bits >> 16 : bits & 0xffff);
    };
    int g = emulated_context->lane / 4, t = emulated_context->lane % 4;
    for (int i = 0; i < 4; ++i) {
        int row = g + 8 * (i / 2), column = 2 * t + i % 2;
        for (int k = 0; k < 16; ++k) {
            int pair = k % 8 / 2, upper = k / 8;
            float x = value(row % 8 * 4 + pair, 2 * upper + row / 8, k % 2);
            float y = value(column * 4 + pair, 4 + upper, k % 2);
            d[i] += x * y;
        }
    }
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#else
typedef float Operand;
#endif

// A piece of both operands. Lines are padded so that a warp's reads fall into different banks.
struct Tile {
#if BF16
    Operand a[ROWS][DEPTH + 2], b[COLUMNS][DEPTH + 2];
    __device__ static void put(Operand (&into)[ROWS][DEPTH + 2], int line, int k, float value) {
        into[line][k] = (Operand)(pack_bf16(value, 0.0f) & 0xffff);
    }
#else
    Operand a[DEPTH][ROWS + 4], b[DEPTH][COLUMNS + 4];
    __device__ static void put(Operand (&into)[DEPTH][ROWS + 4], int line, int k, float value) { into[k][line] = value; }
#endif
};

// A thread's 16 values of the result.
struct Sums {
    float value[16];
    __device__ Sums() {
        for (int i = 0; i < 16; ++i) value[i] = 0.0f;
    }
#if BF16
    // Eight warps, each 16 rows by 32 columns: four products of 8 columns.
    __device__ static int row(int i) { return threadIdx.x / 64 * 16 + threadIdx.x % 32 / 4 + i % 4 / 2 * 8; }
    __device__ static int column(int i) { return threadIdx.x / 32 % 2 * 32 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }
#else
    // Four rows by four columns.
    __device__ static int row(int i) { return threadIdx.x / 16 * 4 + i / 4; }
    __device__ static int column(int i) { return threadIdx.x % 16 * 4 + i % 4; }
#endif
    __device__ void add(const Tile &tile) {
#if BF16
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        int row = threadIdx.x / 64 * 16 + g, column = threadIdx.x / 32 % 2 * 32 + g;
        auto pair = [](const Operand *at) { return (unsigned)at[0] | (unsigned)at[1] << 16; };
        unsigned a[4] = {pair(&tile.a[row][2 * t]), pair(&tile.a[row + 8][2 * t]),
                         pair(&tile.a[row][2 * t + 8]), pair(&tile.a[row + 8][2 * t + 8])};
        for (int j = 0; j < 4; ++j) {
            unsigned b[2] = {pair(&tile.b[column + 8 * j][2 * t]), pair(&tile.b[column + 8 * j][2 * t + 8])};
            float(&d)[4] = *reinterpret_cast<float(*)[4]>(&value[4 * j]);
            mma_m16n8k16_bf16(d, a, b);
        }
#else
        int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
        for (int k = 0; k < DEPTH; ++k)
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j)
                    value[4 * i + j] = fmaf(tile.a[k][row + i], tile.b[k][column + j], value[4 * i + j]);
#endif
    }
    // Puts the tile together. The caller's barrier comes before anybody reads it.
    __device__ void stage(Stage &stage) const {
        for (int i = 0; i < 16; ++i) stage.value[row(i)][column(i)] = value[i];
    }
};

// The line of an operand ALONG_DEPTH that this thread loads, or its first element in another.
__device__ __forceinline__ int own_line() { return threadIdx.x / 4; }

template <class Load, class Into> __device__ void fill(Into &into, const Load &load, const typename Load::Place &own, int tap, int from) {
    if (Load::ALONG_DEPTH) {
        int line = threadIdx.x / 4, k = threadIdx.x % 4 * 4;
        for (int i = 0; i < 4; ++i) Tile::put(into, line, k + i, load.load(own, tap, from + k + i));
    } else {
        int k = threadIdx.x / 16, line = threadIdx.x % 16 * 4;
        typename Load::Place place = load.place(from + k);
        for (int i = 0; i < 4; ++i) Tile::put(into, line + i, k, load.load(place, tap, line + i));
    }
}

// Sums over depths `first` to `last` of each of `taps` taps. Ends with a barrier.
template <class A, class B>
__device__ void product(Tile &tile, Sums &sums, int taps, int first, int last, const A &a, const B &b) {
    typename A::Place of_a = a.place(A::ALONG_DEPTH ? own_line() : first);
    typename B::Place of_b = b.place(B::ALONG_DEPTH ? own_line() : first);
    for (int tap = 0; tap < taps; ++tap)
        for (int from = first; from < last; from += DEPTH) {
            fill(tile.a, a, of_a, tap, from);
            fill(tile.b, b, of_b, tap, from);
            __syncthreads();
            sums.add(tile);
            __syncthreads();
        }
}
