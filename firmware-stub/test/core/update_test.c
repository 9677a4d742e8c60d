/* Complete updates: loss, order, dialects, codecs, geometries, a reset after every fragment. */
#include "kit.h"
#include "tests.h"

static struct kit k;
static struct bundle b;

static const struct layout small = {256, 8, 4096, 8192, 2048, 1024, 512, 0xff};

/* Feed 1, 2, 3 ... with that loss in percent. Returns fragments received when the block can be solved. */
static unsigned feed(unsigned loss, int reset_each, uint32_t seed)
{
    unsigned got = 0;
    uint8_t f[255];

    for (uint16_t n = 1; n < 16384; n++) {
        int r;

        if (rnd(&seed) % 100 < loss)
            continue;
        make_fragment(&b, n, f);
        r = sow_core_fragment(&k.core, b.session.index, n, f, b.session.frag_size);
        CHECK(r == SOW_MORE || r == SOW_DONE);
        got++;
        if (r == SOW_DONE)
            return got;
        CHECK(sow_core_work(&k.core) >= 0);
        if (reset_each)
            CHECK(kit_start(&k) >= 0);
    }
    CHECK(!"block complete");
    return 0;
}

static void finish(void)
{
    struct sow_image image;
    struct sow_boot_status boot;
    struct sow_status st;

    CHECK(kit_work(&k) == SOW_DONE);
    sow_core_status(&k.core, b.session.index, &st);
    CHECK(st.exists && st.step == SOW_STEP_READY && st.missing == 0 && st.cause == 0);
    sow_core_image(&k.core, &image);
    CHECK(image.state == 3 && (image.version & 0xff000000u) == 0x02000000u);
    CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_a.addr), k.old, k.old_size) == 0);
    CHECK(sow_core_install(&k.core) == SOW_OK);
    CHECK(kit_start(&k) >= 0);
    sow_boot_read(&k.config, &boot);
    CHECK(boot.state == SOW_BOOT_TRIAL && boot.attempts == 1 && boot.version == image.version);
    sow_core_status(&k.core, b.session.index, &st);
    CHECK(st.step == SOW_STEP_TRIAL);
    CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_a.addr), b.image, b.image_size) == 0);
    CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_b.addr), k.old, k.old_size) == 0);
    CHECK(sow_boot_confirm(&k.config) == SOW_OK);
    CHECK(kit_start(&k) >= 0);
    sow_boot_read(&k.config, &boot);
    CHECK(boot.state == SOW_BOOT_CONFIRMED && boot.sequence > 0);
    CHECK(k.flash.violations == 0 && k.flash.refusals == 0);
}

static void one(const struct layout *l, uint8_t codec, uint8_t matrix, unsigned loss, int reset_each, uint32_t size,
                uint8_t frag_size, uint32_t seed)
{
    unsigned got;

    snprintf(context, sizeof context, "page %u granule %u codec %u matrix %u loss %u%% reset %d size %u frag %u seed %u",
             (unsigned)l->page, (unsigned)l->granule, codec, matrix, loss, reset_each, (unsigned)size, frag_size,
             (unsigned)seed);
    kit_open(&k, l, 3000, seed);
    make_bundle(&b, &k, codec, size, 5, frag_size, matrix);
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    got = feed(loss, reset_each, seed);
    CHECK(got >= b.session.nb_frag && got < b.session.nb_frag + 20u);
    finish();
    kit_close(&k);
}

void update_tests(void)
{
    static const uint8_t granules[] = {1, 2, 4, 8, 16};
    static const unsigned losses[] = {0, 10, 30};
    unsigned runs = 0;

    for (uint8_t matrix = 1; matrix <= 3; matrix++)
        for (unsigned li = 0; li < 3; li++)
            for (uint8_t codec = 0; codec <= 1; codec++)
                for (int reset = 0; reset <= 1; reset++, runs++)
                    one(&small, codec, matrix, losses[li], reset, 3500, 48, 17 + runs);
    for (unsigned g = 0; g < 5; g++)
        for (unsigned page = 128; page <= 2048; page *= 4)
            for (unsigned ev = 0; ev <= 0xff; ev += 0xff, runs++) {
                struct layout l = {page, granules[g], 4096, 12288, 4096, 4096, 4096, (uint8_t)ev};

                one(&l, runs & 1, 2, 20, runs & 2, 2900 + runs, (uint8_t)(20 + runs % 90), 1000 + runs);
            }
    printf("updates            %6u complete, 0 granules programmed twice\n", runs);
}
