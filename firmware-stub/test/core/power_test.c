/* Power is lost at every single flash operation of a device's life, in every way the emulator knows. */
#include "kit.h"
#include "tests.h"

enum goal { CONFIRM, REJECT, HANG };

struct server { /* what the far side knows: it survives the device's resets */
    uint16_t next;
    unsigned losses;
    uint32_t seed;
};

static struct kit k;
static struct bundle b;
static struct server server;

static int off(void)
{
    return sow_flash_emu_is_off(&k.flash);
}

static int holds(const struct sow_region *slot, const uint8_t *image, uint32_t size)
{
    return memcmp(sow_flash_emu_peek(&k.flash, slot->addr), image, size) == 0;
}

static void give_session(void)
{
    int r = sow_core_session(&k.core, &b.session);

    CHECK(r == SOW_OK || off());
}

/* The next fragment on the air that is not lost. */
static void give_fragment(void)
{
    uint8_t f[255];
    int r;

    while (rnd(&server.seed) % 100 < server.losses)
        server.next++;
    make_fragment(&b, server.next, f);
    r = sow_core_fragment(&k.core, b.session.index, server.next++, f, b.session.frag_size);
    CHECK(server.next < b.session.nb_frag * 3u);
    CHECK(r >= 0 || off());
}

/* From one reset to the next. 1: the goal is reached. */
static int once(enum goal goal)
{
    struct sow_boot_status boot;
    struct sow_status st;
    int r = kit_start(&k);

    if (off())
        return 0;
    CHECK(r >= 0);
    CHECK(holds(&k.map.slot_a, k.old, k.old_size) || holds(&k.map.slot_a, b.image, b.image_size));
    CHECK(sow_boot_read(&k.config, &boot) == SOW_OK);
    CHECK(boot.state != SOW_BOOT_REFUSED);
    if (boot.state == SOW_BOOT_CONFIRMED) {
        CHECK(goal == CONFIRM && holds(&k.map.slot_a, b.image, b.image_size));
        CHECK(boot.sequence == 5);
        return 1;
    }
    if (boot.state == SOW_BOOT_REVERTED) {
        CHECK(goal != CONFIRM && holds(&k.map.slot_a, k.old, k.old_size));
        CHECK(boot.cause == (goal == HANG ? SOW_CAUSE_BOOT_HANG : SOW_CAUSE_SELF_TEST_FAILED));
        CHECK(boot.sequence == 0);
        return 1;
    }
    if (boot.state == SOW_BOOT_TRIAL) {
        CHECK(holds(&k.map.slot_a, b.image, b.image_size));
        if (goal == CONFIRM)
            (void)sow_boot_confirm(&k.config);
        else if (goal == REJECT)
            (void)sow_boot_reject(&k.config, SOW_CAUSE_SELF_TEST_FAILED);
        return 0;
    }
    while (!off()) {
        CHECK(holds(&k.map.slot_a, k.old, k.old_size));
        sow_core_status(&k.core, b.session.index, &st);
        if (st.step == SOW_STEP_NONE) {
            give_session();
        } else if (st.step == SOW_STEP_READY) {
            r = sow_core_install(&k.core);
            CHECK(r == SOW_OK || off());
            return 0;
        } else {
            CHECK(st.exists && st.cause == 0);
            r = sow_core_work(&k.core);
            CHECK(r >= 0 || off());
            if (r == SOW_OK)
                give_fragment();
        }
    }
    return 0;
}

static void live(enum goal goal)
{
    unsigned resets = 0;

    while (!once(goal)) {
        CHECK(++resets < 12);
        sow_flash_emu_power_up(&k.flash);
    }
    CHECK(k.flash.violations == 0);
}

static unsigned long runs;

/* Every operation from the snapshot to the goal. */
static void cut_everywhere(const char *what, const void *snapshot, const struct server *at, enum goal goal, unsigned step)
{
    uint32_t total;

    sow_flash_emu_restore(&k.flash, snapshot);
    server = *at;
    total = k.flash.progs + k.flash.erases;
    snprintf(context, sizeof context, "%s", what);
    live(goal);
    total = k.flash.progs + k.flash.erases - total;
    for (uint32_t op = 1; op <= total; op += step)
        for (unsigned how = 0; how < 8; how++, runs++) {
            snprintf(context, sizeof context, "%s: cut %u of %u, kind %u%s", what, (unsigned)op, (unsigned)total, how / 2,
                     how & 1 ? " ECC" : "");
            sow_flash_emu_restore(&k.flash, snapshot);
            server = *at;
            sow_flash_emu_cut(&k.flash, op, (enum sow_flash_emu_cut)(how / 2), how & 1, op * 8 + how + 1);
            live(goal);
        }
    printf("  %-40s %6u operations\n", what, (unsigned)total);
}

static void whole_life(const char *name, const struct layout *l, uint8_t codec, uint8_t matrix, unsigned losses,
                       uint8_t frag_size, unsigned step)
{
    struct server start = {1, losses, 99};
    char what[100];
    void *snapshot;

    kit_open(&k, l, 700, 3);
    k.arena_size = 1024;
    make_bundle(&b, &k, codec, 800, 5, frag_size, matrix);
    snapshot = malloc(sow_flash_emu_snapshot_size(&k.flash));
    sow_flash_emu_save(&k.flash, snapshot);
    snprintf(what, sizeof what, "%s: receive, install, confirm", name);
    cut_everywhere(what, snapshot, &start, CONFIRM, step);
    /* To the trial, then the other ends. */
    sow_flash_emu_restore(&k.flash, snapshot);
    server = start;
    while (!once(HANG)) {
        struct sow_boot_status boot;

        sow_boot_read(&k.config, &boot);
        if (boot.state == SOW_BOOT_TRIAL)
            break;
    }
    sow_flash_emu_save(&k.flash, snapshot);
    snprintf(what, sizeof what, "%s: reject, roll back", name);
    cut_everywhere(what, snapshot, &server, REJECT, step);
    snprintf(what, sizeof what, "%s: hang, roll back", name);
    cut_everywhere(what, snapshot, &server, HANG, step);
    free(snapshot);
    kit_close(&k);
}

void power_tests(void)
{
    static const struct layout g8 = {256, 8, 1024, 2048, 1024, 512, 512, 0xff};
    static const struct layout g16 = {512, 16, 1024, 3072, 1024, 1024, 512, 0x00};

    whole_life("patch, v2, 30 % loss, 8-byte granules", &g8, SOW_CODEC_PATCH, SOW_MATRIX_V2, 30, 24, 1);
    whole_life("full, v1, 20 % loss, 16-byte granules", &g16, SOW_CODEC_FULL, SOW_MATRIX_V1, 20, 32, 1);
    printf("power cuts         %6lu runs, 0 failures\n", runs);
}
