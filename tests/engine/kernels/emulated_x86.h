// Included before kernels.c to compile its AVX-512 or AVX-VNNI code for a CPU that has only AVX2, FMA and F16C.
//
// SIMDe replaces the intrinsics; the macros that announce the instruction sets are defined after it, or it would take
// them for present. What Debian's SIMDe (0.7.4) lacks is added here with vector extensions.

#include <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#if defined(EMULATE_AVX512)
#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512CD__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1
#define __AVX512VNNI__ 1
#define __AVX512BF16__ 1

typedef float emulated_floats __attribute__((vector_size(64)));
typedef int emulated_ints __attribute__((vector_size(64)));
typedef unsigned emulated_unsigneds __attribute__((vector_size(64)));
typedef unsigned short emulated_shorts __attribute__((vector_size(32)));
typedef signed char emulated_chars __attribute__((vector_size(16)));
typedef unsigned char emulated_bytes __attribute__((vector_size(16)));

#define _mm512_cvtepi32_ps(a) ((__m512)__builtin_convertvector((emulated_ints)(a), emulated_floats))
#define _mm512_cvtepu16_epi32(a) ((__m512i)__builtin_convertvector((emulated_shorts)(a), emulated_unsigneds))
#define _mm512_cvtepu8_epi32(a) ((__m512i)__builtin_convertvector((emulated_bytes)(a), emulated_unsigneds))
#define _mm512_cvtepi8_epi32(a) ((__m512i)__builtin_convertvector((emulated_chars)(a), emulated_ints))

static inline __m512 emulated_cvtph(__m256i halves) {
    __m256 two[2] = {_mm256_cvtph_ps(((__m128i *)&halves)[0]), _mm256_cvtph_ps(((__m128i *)&halves)[1])};
    __m512 wide;
    __builtin_memcpy(&wide, two, sizeof wide);
    return wide;
}
#define _mm512_cvtph_ps(a) emulated_cvtph(a)

static inline float emulated_reduce_add(__m512 values) {
    float total = 0;
    for (int i = 0; i < 16; i++) total += values[i];
    return total;
}
#define _mm512_reduce_add_ps(a) emulated_reduce_add(a)

static inline float emulated_reduce_max(__m512 values) {
    float largest = values[0];
    for (int i = 1; i < 16; i++) largest = values[i] > largest ? values[i] : largest;
    return largest;
}
#define _mm512_reduce_max_ps(a) emulated_reduce_max(a)
#elif defined(EMULATE_AVXVNNI)
#define __AVXVNNI__ 1
#define _mm256_dpbusd_avx_epi32(total, a, b) simde_mm256_dpbusd_epi32(total, a, b)
#define _mm_dpbusd_avx_epi32(total, a, b) simde_mm_dpbusd_epi32(total, a, b)
#endif
