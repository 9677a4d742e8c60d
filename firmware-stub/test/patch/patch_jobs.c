// Decodes patches for a test that feeds them on standard input, and checks how the decoder uses
// its callbacks: nothing out of bounds, the stream strictly forward, the new image only below
// what was produced, the scratch erased before it is programmed and no block programmed twice.
//
// Job, integers little endian: u32 profile, options, base_size, new_size, link_base,
// scratch_size, stream_size, chunk; then base and stream. chunk is the size of the pulls.
// Answer: i32 code, u32 bytes produced, u32 calls that broke a rule; then the bytes.
#include "sow_patch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct sow_patch_params *prm;
    uint8_t *base, *stream, *out, *scratch, *programmed;
    uint32_t stream_size, stream_at, produced, broken;
};

static int read_base(void *user, uint32_t off, void *buf, uint32_t n)
{
    struct job *j = user;

    if (n == 0 || off > j->prm->base_size || n > j->prm->base_size - off) {
        j->broken++;
        return -1;
    }
    memcpy(buf, j->base + off, n);
    return 0;
}

static int read_stream(void *user, uint32_t off, void *buf, uint32_t n)
{
    struct job *j = user;

    if (n == 0 || off != j->stream_at || n > j->stream_size - off) {
        j->broken++;
        return -1;
    }
    j->stream_at += n;
    memcpy(buf, j->stream + off, n);
    return 0;
}

static int read_new(void *user, uint32_t off, void *buf, uint32_t n)
{
    struct job *j = user;

    if (n == 0 || off > j->produced || n > j->produced - off) {
        j->broken++;
        return -1;
    }
    memcpy(buf, j->out + off, n);
    return 0;
}

static int scratch_erase(void *user, uint32_t off, uint32_t n)
{
    struct job *j = user;

    if (off != 0 || n != j->prm->scratch_size) {
        j->broken++;
        return -1;
    }
    memset(j->scratch, 0xff, n);
    memset(j->programmed, 0, n / 64);
    return 0;
}

static int scratch_prog(void *user, uint32_t off, const void *buf, uint32_t n)
{
    struct job *j = user;
    uint32_t k;

    if (n == 0 || off % 64 != 0 || n % 64 != 0 || off > j->prm->scratch_size ||
        n > j->prm->scratch_size - off) {
        j->broken++;
        return -1;
    }
    for (k = off / 64; k < (off + n) / 64; k++) {
        if (j->programmed[k])
            j->broken++;
        j->programmed[k] = 1;
    }
    memcpy(j->scratch + off, buf, n);
    return 0;
}

static int scratch_read(void *user, uint32_t off, void *buf, uint32_t n)
{
    struct job *j = user;

    if (n == 0 || off > j->prm->scratch_size || n > j->prm->scratch_size - off) {
        j->broken++;
        return -1;
    }
    memcpy(buf, j->scratch + off, n);
    return 0;
}

static void *need(size_t n)
{
    void *p = malloc(n ? n : 1);

    if (p == NULL)
        exit(3);
    return p;
}

static int get(void *buf, size_t n)
{
    return fread(buf, 1, n, stdin) == n;
}

int main(void)
{
    uint32_t h[8];

    while (get(h, sizeof h)) {
        struct sow_patch_params prm = {(uint8_t)h[0], (uint8_t)h[1], h[2], h[3], h[4], h[5]};
        struct job j = {&prm, NULL, NULL, NULL, NULL, NULL, h[6], 0, 0, 0};
        struct sow_patch_io io = {&j, read_base, read_stream, read_new,
                                  scratch_erase, scratch_prog, scratch_read};
        struct sow_patch p;
        uint32_t size = sow_patch_work_size(&prm), head[3];
        void *work = need(size);
        int r;

        j.base = need(prm.base_size);
        j.stream = need(h[6]);
        j.out = need(prm.new_size);
        j.scratch = need(prm.scratch_size);
        j.programmed = need(prm.scratch_size / 64);
        memset(work, 0xa5, size);
        if (!get(j.base, prm.base_size) || !get(j.stream, h[6]))
            return 2;
        r = sow_patch_init(&p, &prm, &io, h[6], work, size);
        while (r == SOW_PATCH_OK && j.produced < prm.new_size) {
            uint32_t n = prm.new_size - j.produced;

            // A buffer of exactly n bytes lets the sanitizer see a write beyond it.
            uint8_t *out;

            if (n > h[7])
                n = h[7];
            out = need(n);
            r = sow_patch_read(&p, out, n);
            if (r == SOW_PATCH_OK) {
                memcpy(j.out + j.produced, out, n);
                j.produced += n;
            }
            free(out);
        }
        head[0] = (uint32_t)r;
        head[1] = j.produced;
        head[2] = j.broken;
        if (fwrite(head, sizeof head, 1, stdout) != 1 ||
            fwrite(j.out, 1, j.produced, stdout) != j.produced || fflush(stdout) != 0)
            return 2;
        free(work);
        free(j.base);
        free(j.stream);
        free(j.out);
        free(j.scratch);
        free(j.programmed);
    }
    return 0;
}
