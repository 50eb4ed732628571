// Calls one function of a shared library with arguments from a file, and writes the memory as it is afterwards:
//
//     driver LIBRARY FUNCTION INPUT OUTPUT
//
// emulation.py writes INPUT: four counts; the size of each region of memory; the places in regions that point to others
// (region, position, region pointed to, position there); integers and pointers (region or -1, value or position); floats
// as their bits; the regions. All numbers have 64 bits. OUTPUT: the result, then the regions.
//
// It knows no signature: integers and pointers are passed apart from floats, in registers and then in slots of 8 bytes,
// so on AArch64 with Linux and on x86-64 any function can be called as one of many integers and a few floats.

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INTEGERS = 24, FLOATS = 8 };

typedef int64_t (*function)(
    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, float,
    float, float, float, float, float, float
);

static void fail(const char *what) {
    fprintf(stderr, "driver: %s\n", what);
    exit(2);
}

static int64_t *numbers(FILE *file, int64_t count) {
    int64_t *values = calloc((size_t)count + 1, sizeof *values);
    if (!values || fread(values, sizeof *values, (size_t)count, file) != (size_t)count) fail("the input is too short");
    return values;
}

int main(int count, char **words) {
    if (count != 5) fail("usage: driver LIBRARY FUNCTION INPUT OUTPUT");
    void *library = dlopen(words[1], RTLD_NOW);
    if (!library) fail(dlerror());
    function call;
    *(void **)&call = dlsym(library, words[2]);
    if (!call) fail(dlerror());
    FILE *in = fopen(words[3], "rb"), *out = fopen(words[4], "wb");
    if (!in || !out) fail("a file cannot be opened");

    int64_t *counts = numbers(in, 4), regions = counts[0], integers = counts[2], floats = counts[3];
    int64_t *sizes = numbers(in, regions), *pointers = numbers(in, 4 * counts[1]);
    int64_t *pairs = numbers(in, 2 * integers), *bits = numbers(in, floats), i[INTEGERS] = {0};
    float f[FLOATS] = {0};
    if (integers > INTEGERS || floats > FLOATS) fail("too many arguments");
    char **memory = calloc((size_t)regions + 1, sizeof *memory);
    for (int64_t r = 0; r < regions; r++) {
        memory[r] = aligned_alloc(64, ((size_t)sizes[r] + 127) / 64 * 64);  // as torch aligns
        if (fread(memory[r], 1, (size_t)sizes[r], in) != (size_t)sizes[r]) fail("the input is too short");
    }
    for (int64_t p = 0; p < counts[1]; p++) {
        int64_t *one = pointers + 4 * p;
        char *target = memory[one[2]] + one[3];
        memcpy(memory[one[0]] + one[1], &target, sizeof target);
    }
    for (int64_t n = 0; n < integers; n++)
        i[n] = pairs[2 * n] < 0 ? pairs[2 * n + 1] : (int64_t)(intptr_t)(memory[pairs[2 * n]] + pairs[2 * n + 1]);
    for (int64_t n = 0; n < floats; n++) memcpy(f + n, bits + n, sizeof *f);

    int64_t result = call(
        i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8], i[9], i[10], i[11], i[12], i[13], i[14], i[15], i[16],
        i[17], i[18], i[19], i[20], i[21], i[22], i[23], f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]
    );
    fwrite(&result, sizeof result, 1, out);
    for (int64_t r = 0; r < regions; r++) fwrite(memory[r], 1, (size_t)sizes[r], out);
    return fclose(out) ? 1 : 0;
}
