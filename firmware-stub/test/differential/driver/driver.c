/* Sessions from stdin through the device library, for comparison with another decoder.
 *
 *   in   matrix u8, nb_frag u16, frag_size u8, padding u8, count u32,
 *        count times { number u16, reset before it u8, data frag_size }      little endian
 *   out  index u32 of the fragment that completed the block, or count; then the block, if one did
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "kit.h"
#include "sow_core_private.h"

static struct kit k;

static uint32_t get(unsigned n)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < n; i++) {
        int c = getchar();

        CHECK(c != EOF);
        v |= (uint32_t)c << 8 * i;
    }
    return v;
}

/* Solve and check, stop before the block is judged: it carries no manifest. */
static void put_block(void)
{
    uint8_t buf[256];
    uint32_t size = sow_block_size(&k.core);

    while (k.core.at.phase == SOW_CORE_SOLVE || k.core.at.phase == SOW_CORE_CHECK)
        CHECK(sow_core_work(&k.core) == SOW_MORE);
    CHECK(k.core.at.phase == SOW_CORE_MIC);
    for (uint32_t at = 0; at < size; at += sizeof buf) {
        uint32_t n = size - at < sizeof buf ? size - at : sizeof buf;

        CHECK(sow_block_read(&k.core, at, buf, n) == SOW_OK);
        CHECK(fwrite(buf, 1, n, stdout) == n);
    }
}

int main(void)
{
    static const struct layout l = {1024, 8, 65536, 32768, 2048, 2048, 1024, 0xff};
    int c;

    while ((c = getchar()) != EOF) {
        struct sow_session s;
        uint32_t count, done;
        uint8_t data[255];

        memset(&s, 0, sizeof s);
        s.matrix = (uint8_t)c;
        s.nb_frag = (uint16_t)get(2);
        s.frag_size = (uint8_t)get(1);
        s.padding = (uint8_t)get(1);
        done = count = get(4);
        kit_open(&k, &l, 1000, 1);
        CHECK(kit_start(&k) == SOW_OK);
        CHECK(sow_core_session(&k.core, &s) == SOW_OK);
        CHECK(kit_work(&k) == SOW_OK);
        for (uint32_t i = 0; i < count; i++) {
            uint16_t n = (uint16_t)get(2);
            uint32_t reset = get(1);
            int r;

            CHECK(fread(data, 1, s.frag_size, stdin) == s.frag_size);
            if (done != count)
                continue;
            if (reset)
                CHECK(kit_start(&k) >= 0);
            r = sow_core_fragment(&k.core, 0, n, data, s.frag_size);
            CHECK(r == SOW_MORE || r == SOW_DONE);
            if (r == SOW_DONE)
                done = i;
        }
        for (unsigned i = 0; i < 4; i++)
            putchar((int)(done >> 8 * i & 0xff));
        if (done != count)
            put_block();
        fflush(stdout);
        kit_close(&k);
    }
    return 0;
}
