/* Public vectors, large sessions within their memory, broken pages, the real signature. */
#include "kit.h"
#include "sow_parity.h"
#include "sow_sha256.h"
#include "tests.h"
#include "vectors.h"

static struct kit k;
static struct bundle b;

static void parity_vectors(void)
{
    unsigned n = sizeof vectors / sizeof *vectors;

    for (unsigned i = 0; i < n; i++) {
        uint8_t digest[32], f[255];
        char hex[65];
        struct sow_sha256 s;

        snprintf(context, sizeof context, "parity vector v%d M=%d", vectors[i].version, vectors[i].m);
        b.session.nb_frag = vectors[i].m;
        b.session.frag_size = (uint8_t)vectors[i].frag_size;
        b.session.matrix = vectors[i].version;
        for (uint32_t j = 0; j < (uint32_t)vectors[i].m * vectors[i].frag_size; j++)
            b.block[j] = (uint8_t)((j * 31 + 7) % 251);
        sow_sha256_init(&s);
        for (uint16_t m = 1; m <= vectors[i].m + vectors[i].parity; m++) {
            make_fragment(&b, m, f);
            sow_sha256_update(&s, f, b.session.frag_size);
        }
        sow_sha256_final(&s, digest);
        for (unsigned j = 0; j < 32; j++)
            snprintf(hex + 2 * j, 3, "%02x", digest[j]);
        CHECK(strcmp(hex, vectors[i].sha256) == 0);
    }
    {
        /* M = 33, row 1 of the literal reading, as of a program of its own. */
        static const uint8_t ones[] = {1, 3, 6, 7, 9, 12, 13, 14, 17, 18, 19, 21, 22, 26, 27, 31};
        uint8_t row[8] = {0}, want[8] = {0};

        for (unsigned i = 0; i < sizeof ones; i++)
            sow_bit_flip(want, ones[i]);
        sow_parity_row(row, SOW_MATRIX_V2_ABSOLUTE, 33, 34);
        CHECK(memcmp(row, want, 8) == 0);
    }
    /* The literal reading of TS004-2.0.0 is the same generator, seeded with N instead of N - M. */
    for (uint16_t m = 2; m < 200; m++) {
        uint8_t absolute[32] = {0}, relative[32] = {0};

        sow_parity_row(absolute, SOW_MATRIX_V2_ABSOLUTE, m, (uint16_t)(m + 3));
        sow_parity_row(relative, SOW_MATRIX_V2, m, (uint16_t)(2 * m + 3));
        CHECK(memcmp(absolute, relative, 32) == 0);
    }
    printf("parity vectors     %6u\n", n);
}

static void large(uint16_t m, uint8_t frag_size, unsigned loss, uint32_t slot)
{
    struct layout l = {2048, 8, slot, slot, 4096, 4096, 8192, 0xff};
    uint32_t seed = 4711;
    struct sow_status st;
    unsigned lost = 0, parity = 0;
    uint8_t f[255];
    int r = SOW_MORE;

    snprintf(context, sizeof context, "M=%u S=%u", m, frag_size);
    kit_open(&k, &l, 4000, 1);
    make_bundle(&b, &k, SOW_CODEC_FULL, (uint32_t)m * frag_size - SOW_MANIFEST_SIZE - 3, 5, frag_size, SOW_MATRIX_V2);
    CHECK(b.session.nb_frag == m);
    k.arena_size = sow_core_arena_size(m, frag_size, 0);
    free(k.arena);
    k.arena = aligned_alloc(8, k.arena_size); /* not a byte more: the address sanitizer watches */
    CHECK(k.arena != 0);
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    for (uint16_t n = 1; r != SOW_DONE; n++) {
        if (rnd(&seed) % 100 < loss) {
            lost += n <= m;
            continue;
        }
        parity += n > m;
        make_fragment(&b, n, f);
        r = sow_core_fragment(&k.core, 0, n, f, frag_size);
        CHECK(r >= 0 && n < 3 * m);
    }
    CHECK(parity < lost + 16);
    CHECK(kit_work(&k) == SOW_DONE);
    sow_core_status(&k.core, 0, &st);
    CHECK(st.step == SOW_STEP_READY);
    printf("large session      M=%u S=%u: %u lost, %u parity fragments, arena %u B\n", m, frag_size, lost, parity,
           (unsigned)k.arena_size);
    kit_close(&k);
}

/* One page is broken from the start. The device may fail to update; it must say so, boot and stay reachable. */
static unsigned broken(uint32_t page, unsigned fault, unsigned *done)
{
    static const struct layout l = {256, 8, 1536, 3072, 1024, 1024, 768, 0xff};
    uint16_t next = 1;
    int ready = 0;

    kit_open(&k, &l, 1000, 5);
    k.arena_size = 1024;
    make_bundle(&b, &k, SOW_CODEC_PATCH, 1100, 5, 24, SOW_MATRIX_V1);
    if (page < k.map.slot_b.addr - k.map.slot_a.addr || page >= k.flash.geometry.size) {
        kit_close(&k);
        return 0;
    }
    sow_flash_emu_break(&k.flash, k.map.slot_a.addr + page, fault);
    for (unsigned step = 0; step < 600; step++) {
        struct sow_boot_status boot;
        struct sow_status st;
        uint8_t f[255];

        if (step % 200 == 0 || ready) {
            CHECK(kit_start(&k) >= 0 || k.core.at.phase == 0);
            ready = 0;
        }
        sow_boot_read(&k.config, &boot);
        if (boot.state == SOW_BOOT_TRIAL)
            (void)sow_boot_confirm(&k.config);
        if (boot.state == SOW_BOOT_CONFIRMED) {
            CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_a.addr), b.image, b.image_size) == 0);
            ++*done;
            break;
        }
        sow_core_status(&k.core, 0, &st);
        if (st.step == SOW_STEP_NONE)
            (void)sow_core_session(&k.core, &b.session);
        else if (st.step == SOW_STEP_READY)
            ready = sow_core_install(&k.core) == SOW_OK;
        else if (sow_core_work(&k.core) == SOW_OK && st.cause == 0 && st.step == SOW_STEP_RECEIVE) {
            next = (uint16_t)(next + 1 + step % 3 / 2);
            make_fragment(&b, next, f);
            (void)sow_core_fragment(&k.core, 0, next, f, b.session.frag_size);
        }
    }
    {
        uint32_t entry;

        CHECK(sow_boot(&k.config, &entry) == SOW_OK);
    }
    kit_close(&k);
    return 1;
}

static void broken_pages(void)
{
    unsigned runs = 0, done = 0;

    for (unsigned fault = 1; fault <= SOW_FLASH_EMU_SILENT_ERASE; fault *= 2)
        for (uint32_t page = 0; page < 64; page++) {
            snprintf(context, sizeof context, "broken page %u, fault %u", (unsigned)page, fault);
            runs += broken(page * 256, fault, &done);
        }
    printf("broken pages       %6u runs: %u updated, the others stopped; all boot\n", runs, done);
}

/* The software verifier of the library, over a signature made by another implementation. */
static void real_signature(void)
{
    static const struct layout l = {256, 8, 2048, 4096, 1024, 1024, 512, 0xff};
    static const uint8_t pub[64] = {PUB}, sig[64] = {SIG};
    struct sow_boot_status boot;
    int r = SOW_OK;
    uint8_t f[255];

    for (int forged = 0; forged <= 1; forged++) {
        snprintf(context, sizeof context, "real signature, forged %d", forged);
        kit_open(&k, &l, 1000, 5);
        k.port.verify = 0;
        k.identity.keys[1].id = 1;
        memcpy(k.identity.keys[1].pub, pub, 64);
        make_bundle(&b, &k, SOW_CODEC_FULL, 1500, 5, 50, SOW_MATRIX_V1);
        if (getenv("SOWER_TO_SIGN") != 0)
            for (unsigned i = 0; i < SOW_MANIFEST_SIGNED; i++)
                printf("%02x", b.block[i]);
        memcpy(b.block + SOW_MANIFEST_SIGNED, sig, 64);
        b.block[SOW_MANIFEST_SIGNED + 40] = (uint8_t)(b.block[SOW_MANIFEST_SIGNED + 40] + forged);
        CHECK(kit_start(&k) == SOW_OK);
        CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
        for (uint16_t n = 1; n <= b.session.nb_frag; n++) {
            make_fragment(&b, n, f);
            if (sow_core_fragment(&k.core, 0, n, f, b.session.frag_size) < 0 || (r = kit_work(&k)) < 0)
                break;
        }
        if (forged) {
            CHECK(r == -SOW_CAUSE_SIGNATURE_BAD);
        } else {
            CHECK(r == SOW_DONE && sow_core_install(&k.core) == SOW_OK);
            CHECK(kit_start(&k) == SOW_OK);
            sow_boot_read(&k.config, &boot);
            CHECK(boot.state == SOW_BOOT_TRIAL);
        }
        kit_close(&k);
    }
    printf("real signature     accepted; forged: refused\n");
}

void big_tests(void)
{
    parity_vectors();
    real_signature();
    broken_pages();
    large(1000, 232, 30, 512 * 1024);
    if (getenv("SOWER_PROOF") != 0)
        large(4000, 48, 50, 1024 * 1024);
}
