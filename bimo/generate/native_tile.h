// Dot products of a few rows with one block of 32 channels: the only product that native.c computes, of matrices, of
// queries with keys, and of weights with values.
//
// A block holds, for each group of neighbouring inputs that one instruction takes (1 float32, 2 bfloat16, 4 int8), that
// group of all 32 channels one after the other. Every channel of every row is a sum of its own, kept in one lane of a
// register from the first input to the last: the order of additions is the same however many rows are computed at once.
//
//     float32     block: float [in][32]                                row: float [in]
//     bfloat16    block: uint16 [in / 2][32][2]                        row: uint16 [in]
//     int8        block: per 64 inputs uint8 [16][32][4], value + 128, row: per 64 inputs int8 [64], float scale,
//                        then float scale [32]                              int32 -128 * sum
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum { LANES = 16, BLOCK = 32, ROWS = 12, GROUP = 64, ROW_GROUP = GROUP + 8, BLOCK_GROUP = GROUP * BLOCK + 4 * BLOCK };
enum { FLOAT32, BFLOAT16, INT8 };

typedef float vector __attribute__((vector_size(64)));
typedef int32_t integers __attribute__((vector_size(64)));
typedef uint32_t bits __attribute__((vector_size(64)));
typedef float vector_at __attribute__((vector_size(64), aligned(4), may_alias));  // anywhere in memory
typedef uint32_t bits_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t int_at __attribute__((may_alias));
typedef float float_at __attribute__((may_alias));

#define INLINE static inline __attribute__((always_inline))
#define EACH_ROW _Pragma("GCC unroll 12") for (int r = 0; r < n; r++)

INLINE vector load(const float *from) { return *(const vector_at *)from; }
INLINE void store(float *to, vector v) { *(vector_at *)to = v; }
INLINE vector all(float x) { return x - (vector){0}; }
INLINE bits load_bits(const void *from) { return *(const bits_at *)from; }

INLINE vector dot_pairs(vector sum, bits w, uint32_t x) {
#ifdef __AVX512BF16__
    return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32((int)x));
#else
    bits pair = x - (bits){0};
    sum += (vector)(w << 16) * (vector)(pair << 16);
    return sum + (vector)(w & 0xffff0000u) * (vector)(pair & 0xffff0000u);
#endif
}

INLINE integers dot_quads(integers sum, bits w, int32_t x) {  // exact, so the same on every processor
#ifdef __AVX512VNNI__
    return (integers)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
#else
    for (int i = 0; i < 4; i++) sum += (integers)(w >> (8 * i) & 255u) * (int32_t)(int8_t)((uint32_t)x >> (8 * i));
    return sum;
#endif
}

INLINE void tile_float32(const int n, const char *block, const char *rows, int64_t stride, int64_t in, float *out) {
    vector sum[ROWS][2];
    EACH_ROW sum[r][0] = sum[r][1] = (vector){0};
    for (int64_t k = 0; k < in; k++, block += 4 * BLOCK, rows += 4) {
        __builtin_prefetch(block + 4096);
        __builtin_prefetch(block + 4160);
        vector low = load((const float *)block), high = load((const float *)block + LANES);
        EACH_ROW {
            float x = *(const float_at *)(rows + r * stride);
            sum[r][0] += low * x;
            sum[r][1] += high * x;
        }
    }
    EACH_ROW { store(out + r * BLOCK, sum[r][0]); store(out + r * BLOCK + LANES, sum[r][1]); }
}

INLINE void tile_bfloat16(const int n, const char *block, const char *rows, int64_t stride, int64_t in, float *out) {
    vector sum[ROWS][2];
    EACH_ROW sum[r][0] = sum[r][1] = (vector){0};
    for (int64_t k = 0; k < in; k += 2, block += 4 * BLOCK, rows += 4) {
        __builtin_prefetch(block + 4096);
        __builtin_prefetch(block + 4160);
        bits low = load_bits(block), high = load_bits(block + 64);
        EACH_ROW {
            uint32_t x = *(const int_at *)(rows + r * stride);
            sum[r][0] = dot_pairs(sum[r][0], low, x);
            sum[r][1] = dot_pairs(sum[r][1], high, x);
        }
    }
    EACH_ROW { store(out + r * BLOCK, sum[r][0]); store(out + r * BLOCK + LANES, sum[r][1]); }
}

INLINE void tile_int8(const int n, const char *block, const char *rows, int64_t stride, int64_t in, float *out) {
    vector sum[ROWS][2];
    EACH_ROW sum[r][0] = sum[r][1] = (vector){0};
    for (int64_t k = 0; k < in; k += GROUP, block += BLOCK_GROUP, rows += ROW_GROUP) {
        integers exact[ROWS][2];
        EACH_ROW exact[r][0] = exact[r][1] = *(const int_at *)(rows + r * stride + GROUP + 4) - (integers){0};
        for (int q = 0; q < GROUP / 4; q++) {
            __builtin_prefetch(block + 4096 + q * 128);
            __builtin_prefetch(block + 4160 + q * 128);
            bits low = load_bits(block + q * 128), high = load_bits(block + q * 128 + 64);
            EACH_ROW {
                int32_t x = *(const int_at *)(rows + r * stride + q * 4);
                exact[r][0] = dot_quads(exact[r][0], low, x);
                exact[r][1] = dot_quads(exact[r][1], high, x);
            }
        }
        const float *scale = (const float *)(block + GROUP * BLOCK);
        vector low = load(scale), high = load(scale + LANES);
        EACH_ROW {
            float x = *(const float_at *)(rows + r * stride + GROUP);
            sum[r][0] += __builtin_convertvector(exact[r][0], vector) * (low * x);
            sum[r][1] += __builtin_convertvector(exact[r][1], vector) * (high * x);
        }
    }
    EACH_ROW { store(out + r * BLOCK, sum[r][0]); store(out + r * BLOCK + LANES, sum[r][1]); }
}

#define SIZE(type, n) case n: tile_##type(n, block, rows, stride, in, out); break;
#define SIZES(type, name)                                                                                            \
    static __attribute__((noinline)) void name(int n, const char *block, const char *rows, int64_t stride,           \
                                               int64_t in, float *out) {                                             \
        switch (n) {                                                                                                 \
            SIZE(type, 1) SIZE(type, 2) SIZE(type, 3) SIZE(type, 4) SIZE(type, 5) SIZE(type, 6)                      \
            SIZE(type, 7) SIZE(type, 8) SIZE(type, 9) SIZE(type, 10) SIZE(type, 11) SIZE(type, 12)                   \
        }                                                                                                            \
    }
SIZES(float32, dot_float32)
SIZES(bfloat16, dot_bfloat16)
SIZES(int8, dot_int8)

// out [n][32] = the products of n <= ROWS rows, ``stride`` bytes apart, with the 32 channels of a block.
INLINE void dot(int type, int n, const char *block, const char *rows, int64_t stride, int64_t in, float *out) {
    if (type == FLOAT32) dot_float32(n, block, rows, stride, in, out);
    else if (type == BFLOAT16) dot_bfloat16(n, block, rows, stride, in, out);
    else dot_int8(n, block, rows, stride, in, out);
}
