/* Flash that decays, refuses or lies: whatever happens, no wrong image is reported good or booted. */
#include "kit.h"
#include "sow_core_private.h"
#include "tests.h"

static struct kit k;
static struct bundle b;

static const struct layout layout = {256, 8, 1536, 3072, 1024, 1024, 768, 0xff};

static int is(const struct sow_region *slot, const uint8_t *image, uint32_t size)
{
    return memcmp(sow_flash_emu_peek(&k.flash, slot->addr), image, size) == 0;
}

static int c_frozen(const struct sow_core *c)
{
    return (c->at.flags & SOW_FLAG_FROZEN) != 0;
}

struct outcome {
    unsigned again, stopped;
};

/* A life with up to `flips` bit flips, in steps between which a reset may fall. Returns whether the new image
 * was confirmed. */
static int live(uint32_t *seed, unsigned flips, struct outcome *o)
{
    int in_b = 0; /* the image itself may have rotted since it was hashed: the stub will see it */
    uint16_t next = 1;
    uint32_t first = k.map.slot_b.addr, size = k.flash.geometry.size - k.map.slot_a.size;

    for (unsigned step = 0; step < 4000; step++) {
        struct sow_boot_status boot;
        struct sow_status st;
        uint8_t f[255];
        int r;

        if (flips != 0 && rnd(seed) % 60 == 0) {
            uint32_t at = first + rnd(seed) % size;

            flips--;
            in_b |= at < first + k.map.slot_b.size;
            sow_flash_emu_flip(&k.flash, at, rnd(seed) % 8);
        }
        if (rnd(seed) % 16 == 0)
            CHECK(kit_start(&k) >= 0);
        sow_boot_read(&k.config, &boot);
        sow_core_status(&k.core, 0, &st);
        if (boot.state == SOW_BOOT_CONFIRMED && is(&k.map.slot_a, b.image, b.image_size))
            return 1;
        if (st.step == SOW_STEP_NONE || (st.cause != 0 && st.step != SOW_STEP_TRIAL) ||
            (st.step == SOW_STEP_TRIAL && boot.state != SOW_BOOT_TRIAL) || next > 300) {
            /* The server tries again; v2 wants a fresh SessionCnt. */
            o->stopped += st.cause != 0;
            o->again++;
            b.session.session_cnt++;
            set_mic(&b, &k);
            next = 1;
            r = sow_core_session(&k.core, &b.session);
            CHECK(r == SOW_OK || r == -SOW_CAUSE_NO_FLASH || r == -SOW_CAUSE_SESSION_REPLAY);
            if (r == -SOW_CAUSE_NO_FLASH)
                CHECK(kit_start(&k) >= 0);
            continue;
        }
        if (boot.state == SOW_BOOT_TRIAL) {
            CHECK(is(&k.map.slot_a, b.image, b.image_size));
            CHECK(sow_boot_confirm(&k.config) == SOW_OK);
            continue;
        }
        if (st.step == SOW_STEP_READY) {
            r = sow_core_install(&k.core);
            CHECK(r == SOW_OK || r == -SOW_CAUSE_FLASH_DECAY);
            CHECK(kit_start(&k) >= 0);
            continue;
        }
        if (st.step == SOW_STEP_INSTALL) {
            CHECK(kit_start(&k) >= 0);
            continue;
        }
        r = sow_core_work(&k.core);
        if (r == SOW_DONE && !in_b)
            CHECK(is(&k.map.slot_b, b.image, b.image_size));
        if (r != SOW_OK)
            continue;
        while (rnd(seed) % 4 == 0)
            next++;
        make_fragment(&b, next, f);
        (void)sow_core_fragment(&k.core, 0, next++, f, b.session.frag_size);
    }
    return 0;
}

static void flips(unsigned trials)
{
    struct outcome o = {0, 0};

    for (unsigned t = 0; t < trials; t++) {
        uint32_t seed = t * 2654435761u + 1;

        snprintf(context, sizeof context, "bit rot, trial %u", t);
        kit_open(&k, &layout, 1000, 5);
        k.arena_size = 1024;
        make_bundle(&b, &k, t & 1 ? SOW_CODEC_PATCH : SOW_CODEC_FULL, 1100, 5, 24, SOW_MATRIX_V2);
        CHECK(kit_start(&k) == SOW_OK);
        CHECK(live(&seed, 1 + t % 3, &o));
        kit_close(&k);
    }
    printf("bit rot            %6u trials: all ended with the right image, %u sessions repeated, %u stopped with a cause\n",
           trials, o.again - trials, o.stopped);
}

/* Flip one bit of a slot when `at` rows are held (or before the first), and count the fragments that the session
 * then takes, compared with none flipped. It must end well without being set up again. */
static unsigned fragments_with(int flip, unsigned at, int row, int reset, int uncoded_rot)
{
    unsigned got = 0;
    int r = SOW_OK;
    uint8_t f[255];

    kit_open(&k, &layout, 1000, 5);
    k.arena_size = 1024;
    make_bundle(&b, &k, SOW_CODEC_FULL, 1100, 5, 24, SOW_MATRIX_V2);
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    for (uint16_t n = 1; r != SOW_DONE; n++) {
        CHECK(n < 600);
        if (n <= b.session.nb_frag && n % 3 == 1 && n != 1)
            continue; /* lost */
        make_fragment(&b, n, f);
        CHECK(sow_core_fragment(&k.core, 0, n, f, b.session.frag_size) >= 0);
        got++;
        if (flip && (uncoded_rot ? n == b.session.nb_frag : c_frozen(&k.core) && k.core.rank == at)) {
            uint32_t addr = k.map.download.addr + SOW_FREEZES * k.core.stride[SOW_FREEZE] + 10u * k.core.stride[SOW_DATA];

            if (row) {
                addr = k.map.slot_b.addr;
                while (!sow_bit(sow_pivots(&k.core), (addr - k.map.slot_b.addr) / k.core.stride[SOW_ROWS]))
                    addr += k.core.stride[SOW_ROWS];
            }
            sow_flash_emu_flip(&k.flash, addr + 5, 3);
            flip = 0;
            if (reset)
                CHECK(kit_start(&k) >= 0);
        }
        r = kit_work(&k);
        CHECK(r >= 0);
    }
    CHECK(!flip);
    CHECK(is(&k.map.slot_b, b.image, b.image_size));
    kit_close(&k);
    return got;
}

static void one_slot(void)
{
    unsigned none = fragments_with(0, 0, 0, 0, 0), worst = 0, lost = b.session.nb_frag / 3, runs = 0;

    for (int reset = 0; reset <= 1; reset++) {
        unsigned n;

        snprintf(context, sizeof context, "rot before the first row, reset %d", reset);
        n = fragments_with(1, 0, 0, reset, 1);
        CHECK(n <= none + 12);
        runs++;
        for (unsigned at = 1; at <= lost; at++)
            for (int row = 0; row <= 1; row++, runs++) {
                snprintf(context, sizeof context, "rot of a %s at rank %u of %u, reset %d", row ? "row" : "fragment", at,
                         lost, reset);
                n = fragments_with(1, at, row, reset, 0);
                worst = n - none > worst ? n - none : worst;
                /* A row costs itself; a fragment the rows so far, or every second one to come. */
                CHECK(n <= none + 12 + (row ? 0 : at < lost - at ? at : lost - at));
            }
    }
    printf("rotten slots       %6u cases, all recovered by further fragments: at most %u (of %u lost)\n", runs, worst, lost);
}

/* Calls in any order with any arguments, resets and cuts in between: slot A never changes without a signature,
 * nothing is programmed twice, and afterwards an update still goes through. */
static void any_calls(unsigned trials)
{
    uint32_t seed = 77;
    unsigned long calls = 0;

    for (unsigned t = 0; t < trials; t++) {
        struct outcome o = {0, 0};

        kit_open(&k, &layout, 1000, 5);
        k.arena_size = 1024;
        make_bundle(&b, &k, SOW_CODEC_PATCH, 1100, 5, 24, SOW_MATRIX_V2);
        CHECK(kit_start(&k) == SOW_OK);
        for (unsigned i = 0; i < 300; i++, calls++) {
            struct sow_session s = b.session;
            struct sow_status st;
            struct sow_image image;
            uint8_t f[256];

            snprintf(context, sizeof context, "any calls, trial %u, call %u", t, i);
            for (unsigned j = 0; j < sizeof f; j++)
                f[j] = (uint8_t)rnd(&seed);
            switch (rnd(&seed) % 24) {
            case 0:
                memcpy(&s, f, sizeof s);
                (void)sow_core_session(&k.core, &s);
                break;
            case 1:
                s.nb_frag = (uint16_t)(1 + rnd(&seed) % 60);
                s.frag_size = (uint8_t)(1 + rnd(&seed) % 40);
                s.padding = 0;
                s.session_cnt = (uint16_t)rnd(&seed);
                s.has_mic = f[0] & 1;
                s.matrix = (uint8_t)(1 + f[1] % 3);
                (void)sow_core_session(&k.core, &s);
                break;
            case 2:
                if (rnd(&seed) % 4 == 0)
                    (void)sow_core_delete(&k.core, f[0] & 3);
                break;
            case 3:
                sow_flash_emu_cut(&k.flash, 1 + rnd(&seed) % 40, (enum sow_flash_emu_cut)(f[0] % 4), f[1] & 1, seed);
                break;
            case 4:
                (void)sow_core_install(&k.core);
                (void)sow_core_image_delete(&k.core, f[0]);
                sow_core_time(&k.core, rnd(&seed));
                break;
            case 5:
                (void)sow_boot_confirm(&k.config);
                (void)sow_boot_reject(&k.config, f[0]);
                break;
            case 6:
                sow_flash_emu_cut(&k.flash, 0, SOW_FLASH_EMU_TORN, 0, 0);
                sow_flash_emu_power_up(&k.flash);
                CHECK(kit_start(&k) >= 0);
                break;
            case 7:
            case 8:
            case 9:
                (void)kit_work(&k);
                break;
            default: /* half of them fit the session */
                sow_core_status(&k.core, 0, &st);
                (void)sow_core_fragment(&k.core, st.session.index, (uint16_t)(f[0] & 1 ? f[1] : rnd(&seed)), f + 2,
                                        f[0] & 2 ? st.session.frag_size : f[3] % 60);
            }
            sow_core_status(&k.core, f[0], &st);
            sow_core_image(&k.core, &image);
            CHECK(is(&k.map.slot_a, k.old, k.old_size) && image.state != 3);
        }
        sow_flash_emu_cut(&k.flash, 0, SOW_FLASH_EMU_TORN, 0, 0);
        sow_flash_emu_power_up(&k.flash);
        CHECK(kit_start(&k) >= 0);
        b.session.has_mic = 0; /* SessionCnt may be used up */
        CHECK(live(&seed, 0, &o));
        kit_close(&k);
    }
    printf("any calls          %6lu\n", calls);
}

void rot_tests(void)
{
    any_calls(getenv("SOWER_PROOF") != 0 ? 20000 : 300);
    one_slot();
    flips(getenv("SOWER_PROOF") != 0 ? 30000 : 2000);
}
