// Dot products of a few rows with one block of 32 channels: the only product that native.c computes, of matrices, of
// queries with keys, and of weights with values.
//
// A block holds, for each group of neighbouring inputs that one instruction takes (1 float32, 2 bfloat16, 4 int8), that
// group of all 32 channels one after the other. Every channel of every row is a sum of its own, kept in one lane of a
// register from the first input to the last: the order of additions is the same however many rows are computed at once.
//
//     float32     block: float [in][32]                                row: float [in]
//     bfloat16    block: uint16 [in / 2][32][2]                        row: uint16 [in]
//     int8        block: per 32 inputs uint8 [8][32][4], value + 128,  row: per 32 inputs int8 [32], float scale,
//                        then bfloat16 scale [16][2] of channels            int32 -128 * sum
//                        (0, 16), (1, 17) ... (15, 31)
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 12 };  // rows computed at once: with 32 channels their sums fill the registers
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6 };
#else
enum { LANES = 4, ROWS = 3 };
#endif
enum { BLOCK = 32, PARTS = BLOCK / LANES };
enum { GROUP = 32, ROW_GROUP = GROUP + 8, BLOCK_GROUP = GROUP * BLOCK + 2 * BLOCK };  // of int8: inputs, bytes
enum { AHEAD = 4096 };  // bytes between what is read and what is fetched from memory
enum { FLOAT32, BFLOAT16, INT8 };

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef float vector_at __attribute__((vector_size(4 * LANES), aligned(4), may_alias));  // anywhere in memory
typedef uint32_t bits_at __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t int_at __attribute__((may_alias));
typedef float float_at __attribute__((may_alias));

#define INLINE static inline __attribute__((always_inline))
#define EACH_ROW _Pragma("GCC unroll 12") for (int r = 0; r < n; r++)
#define EACH_PART _Pragma("GCC unroll 8") for (int c = 0; c < PARTS; c++)
#define EACH_OF(parts) _Pragma("GCC unroll 8") for (int c = 0; c < parts; c++)

INLINE vector load(const float *from) { return *(const vector_at *)from; }
INLINE void store(float *to, vector v) { *(vector_at *)to = v; }
INLINE vector all(float x) { return x - (vector){0}; }
INLINE bits load_bits(const char *from) { return *(const bits_at *)from; }
INLINE void fetch(const char *block) {
    __builtin_prefetch(block + AHEAD);
    __builtin_prefetch(block + AHEAD + 64);
}

INLINE vector scales_of(const char *scales, int channel) {  // of that channel and the next ones
    bits pairs = load_bits(scales + channel % 16 * 4);
    return (vector)(channel < 16 ? pairs << 16 : pairs & 0xffff0000u);
}

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
#elif defined(__AVX2__) && !defined(__AVX512F__)
    __m256i all = _mm256_set1_epi32(x), odd = _mm256_srai_epi16(all, 8);
    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8);  // bytes 0 and 2, odd has 1 and 3
    sum += (integers)_mm256_madd_epi16((__m256i)(w & 0x00ff00ffu), even);
    return sum + (integers)_mm256_madd_epi16((__m256i)(w >> 8 & 0x00ff00ffu), odd);
#else
    for (int i = 0; i < 4; i++) sum += (integers)(w >> (8 * i) & 255u) * (int32_t)(int8_t)((uint32_t)x >> (8 * i));
    return sum;
#endif
}

// The products of n rows with ``parts`` x LANES channels of a block, from channel ``first`` on.
#define TILE(type)                                                                                                  \
    INLINE void tile_##type(const int n, const int parts, const int first, const char *block, const char *rows,     \
                            int64_t stride, int64_t in, float *out)

TILE(float32) {
    vector sum[ROWS][PARTS], w[PARTS];
    EACH_ROW EACH_OF(parts) sum[r][c] = (vector){0};
    for (int64_t k = 0; k < in; k++, block += 4 * BLOCK, rows += 4) {
        fetch(block);
        EACH_OF(parts) w[c] = load((const float *)block + first + c * LANES);
        EACH_ROW {
            vector x = all(*(const float_at *)(rows + r * stride));
            EACH_OF(parts) sum[r][c] += w[c] * x;
        }
    }
    EACH_ROW EACH_OF(parts) store(out + r * BLOCK + first + c * LANES, sum[r][c]);
}

TILE(bfloat16) {
    vector sum[ROWS][PARTS];
    bits w[PARTS];
    EACH_ROW EACH_OF(parts) sum[r][c] = (vector){0};
    for (int64_t k = 0; k < in; k += 2, block += 4 * BLOCK, rows += 4) {
        fetch(block);
        EACH_OF(parts) w[c] = load_bits(block + 4 * (first + c * LANES));
        EACH_ROW {
            uint32_t x = (uint32_t)*(const int_at *)(rows + r * stride);
            EACH_OF(parts) sum[r][c] = dot_pairs(sum[r][c], w[c], x);
        }
    }
    EACH_ROW EACH_OF(parts) store(out + r * BLOCK + first + c * LANES, sum[r][c]);
}

TILE(int8) {
    vector sum[ROWS][PARTS], scale[PARTS];
    EACH_ROW EACH_OF(parts) sum[r][c] = (vector){0};
    for (int64_t k = 0; k < in; k += GROUP, rows += ROW_GROUP) {
        integers exact[ROWS][PARTS];
        bits w[PARTS];
        EACH_ROW EACH_OF(parts) exact[r][c] = *(const int_at *)(rows + r * stride + GROUP + 4) - (integers){0};
        for (int q = 0; q < GROUP; q += 4, block += 4 * BLOCK) {
            fetch(block);
            EACH_OF(parts) w[c] = load_bits(block + 4 * (first + c * LANES));
            EACH_ROW {
                int32_t x = *(const int_at *)(rows + r * stride + q);
                EACH_OF(parts) exact[r][c] = dot_quads(exact[r][c], w[c], x);
            }
        }
        EACH_OF(parts) scale[c] = scales_of(block, first + c * LANES);
        block += 2 * BLOCK;
        EACH_ROW {
            vector x = all(*(const float_at *)(rows + r * stride + GROUP));
            EACH_OF(parts) sum[r][c] += __builtin_convertvector(exact[r][c], vector) * (scale[c] * x);
        }
    }
    EACH_ROW EACH_OF(parts) store(out + r * BLOCK + first + c * LANES, sum[r][c]);
}

#define WHOLE(type, n) case n: tile_##type(n, PARTS, 0, block, rows, stride, in, out); break;
#if defined(__AVX512F__)
#define SIZES(type, more) WHOLE(type, 1) WHOLE(type, 2) WHOLE(type, 3) WHOLE(type, 4) WHOLE(type, 5) WHOLE(type, 6) \
                          WHOLE(type, 7) WHOLE(type, 8) WHOLE(type, 9) WHOLE(type, 10) WHOLE(type, 11) WHOLE(type, 12)
#elif defined(__AVX__)  // 16 registers hold the sums of 6 rows with half of the channels, of bfloat16 rather 3 with all
#define SIZES(type, more) WHOLE(type, 1) WHOLE(type, 2) more(type, 3) more(type, 4) more(type, 5) more(type, 6)
#else
#define SIZES(type, more) WHOLE(type, 1) WHOLE(type, 2) WHOLE(type, 3)
#endif
#define HALVES(type, n)                                                                                         \
    case n:                                                                                                     \
        for (int first = 0; first < BLOCK; first += BLOCK / 2)                                                  \
            tile_##type(n, PARTS / 2, first, block, rows, stride, in, out);                                     \
        break;
#define THREES(type, n)                                                                                         \
    case n:                                                                                                     \
        tile_##type(3, PARTS, 0, block, rows, stride, in, out);                                                 \
        if (n > 3) tile_##type(n - 3, PARTS, 0, block, rows + 3 * stride, stride, in, out + 3 * BLOCK);         \
        break;
#define DOT(type, more)                                                                                         \
    static __attribute__((noinline)) void dot_##type(int n, const char *block, const char *rows, int64_t stride,\
                                                     int64_t in, float *out) {                                  \
        switch (n) { SIZES(type, more) }                                                                        \
    }
DOT(float32, HALVES)
DOT(bfloat16, THREES)
DOT(int8, HALVES)

// out [n][32] = the products of n <= ROWS rows, ``stride`` bytes apart, with the 32 channels of a block.
INLINE void dot(int type, int n, const char *block, const char *rows, int64_t stride, int64_t in, float *out) {
    if (type == FLOAT32) dot_float32(n, block, rows, stride, in, out);
    else if (type == BFLOAT16) dot_bfloat16(n, block, rows, stride, in, out);
    else dot_int8(n, block, rows, stride, in, out);
}
