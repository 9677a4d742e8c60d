/* Power is lost at every single flash operation of a device's life, in every way the emulator knows. */
#include "delta.h" /* made by delta/main.go */
#include "kit.h"
#include "sow_core_private.h"
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
        sow_core_status(&k.core, b.session.index, &st);
        CHECK(st.step == SOW_STEP_RUNNING && st.cause == SOW_CAUSE_OK);
        return 1;
    }
    if (boot.state == SOW_BOOT_REVERTED) {
        CHECK(goal != CONFIRM && holds(&k.map.slot_a, k.old, k.old_size));
        /* Cuts around the rejection count as trial boots, too. */
        CHECK(boot.cause == SOW_CAUSE_BOOT_HANG || (goal == REJECT && boot.cause == SOW_CAUSE_SELF_TEST_FAILED));
        CHECK(boot.sequence == 0);
        sow_core_status(&k.core, b.session.index, &st);
        CHECK(st.step == SOW_STEP_TRIAL && st.cause == boot.cause);
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
static uint32_t cut_everywhere(const char *what, const void *snapshot, const struct server *at, enum goal goal, unsigned step)
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
    printf("  %-66s %5u operations\n", what, (unsigned)total);
    return total;
}

/* Two cuts: the second strikes while the device recovers from the first. */
static void cut_twice(const char *what, const void *snapshot, const struct server *at, enum goal goal, uint32_t total,
                      unsigned long trials)
{
    uint32_t seed = 20260101;

    for (unsigned long t = 0; t < trials; t++, runs++) {
        uint32_t first = 1 + rnd(&seed) % total, second = 1 + rnd(&seed) % (total < 60 ? total : 60);
        unsigned how = rnd(&seed) % 8, how2 = rnd(&seed) % 8, resets = 0;

        snprintf(context, sizeof context, "%s: cuts %u (%u) then %u (%u)", what, (unsigned)first, how, (unsigned)second,
                 how2);
        sow_flash_emu_restore(&k.flash, snapshot);
        server = *at;
        sow_flash_emu_cut(&k.flash, first, (enum sow_flash_emu_cut)(how / 2), how & 1, seed);
        while (!once(goal)) {
            CHECK(++resets < 16);
            if (off()) {
                sow_flash_emu_power_up(&k.flash);
                if (second != 0)
                    sow_flash_emu_cut(&k.flash, second, (enum sow_flash_emu_cut)(how2 / 2), how2 & 1, seed + 1);
                second = 0;
            }
        }
        CHECK(k.flash.violations == 0);
    }
}

/* Power fails at every fragment's slot, again and again: spares run out, and pages are made anew. No fragment is
 * lost by that, and a power cut during it costs nothing either. */
static void spares_run_out(void)
{
    static const struct layout l = {256, 8, 2048, 3072, 1024, 512, 512, 0xff};
    struct server start = {21, 20, 77};
    struct sow_status st;
    uint8_t f[255];
    uint32_t total, row_repairs = 0;
    void *snapshot;

    snprintf(context, sizeof context, "spares");
    kit_open(&k, &l, 700, 3);
    k.arena_size = 1024;
    make_bundle(&b, &k, SOW_CODEC_FULL, 800, 5, 24, SOW_MATRIX_V1);
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK && kit_work(&k) == SOW_OK);
    for (uint16_t n = 1; n <= 21; n++) {
        make_fragment(&b, n, f);
        /* Torn, then sent again by a server that saw no progress. */
        sow_flash_emu_cut(&k.flash, 2, (enum sow_flash_emu_cut)(n % 2 ? SOW_FLASH_EMU_TORN : n % 4), n & 1, n);
        CHECK(sow_core_fragment(&k.core, 0, n, f, 24) < 0);
        sow_flash_emu_power_up(&k.flash);
        CHECK(kit_start(&k) >= 0);
        sow_core_status(&k.core, 0, &st);
        CHECK(st.received == n - 1);
        if (n <= 20)
            CHECK(sow_core_fragment(&k.core, 0, n, f, 24) == SOW_MORE);
    }
    CHECK(k.core.repairs == 0);
    snapshot = malloc(sow_flash_emu_snapshot_size(&k.flash));
    sow_flash_emu_save(&k.flash, snapshot);
    CHECK(sow_core_fragment(&k.core, 0, 21, f, 24) == SOW_MORE && k.core.repairs > 0);
    /* Rows in slot B, too: each is torn three times before it is whole. */
    for (uint16_t n = 60; k.core.at.phase == SOW_CORE_COLLECT; n++) {
        uint16_t rank = k.core.rank;

        make_fragment(&b, n, f);
        for (unsigned tear = 0; tear < 3; tear++) {
            sow_flash_emu_cut(&k.flash, 2, SOW_FLASH_EMU_TORN, 0, n);
            (void)sow_core_fragment(&k.core, 0, n, f, 24);
            sow_flash_emu_power_up(&k.flash);
            CHECK(kit_start(&k) >= 0);
            CHECK(k.core.at.phase != SOW_CORE_COLLECT || k.core.rank >= rank);
        }
        CHECK(sow_core_fragment(&k.core, 0, n, f, 24) >= 0);
        row_repairs += k.core.repairs;
        CHECK(n < 400);
    }
    CHECK(row_repairs > 5);
    CHECK(kit_work(&k) == SOW_DONE);
    total = cut_everywhere("no spare left: receive, install, confirm", snapshot, &start, CONFIRM, 1);
    cut_twice("no spare left", snapshot, &start, CONFIRM, total, getenv("SOWER_PROOF") != 0 ? 50000 : 1000);
    free(snapshot);
    kit_close(&k);
}

/* Updates and roll-backs without end on one flash: what each page is erased per update. */
static void soak(unsigned updates)
{
    static const struct layout l = {256, 8, 2048, 3072, 2048, 1024, 1024, 0xff};
    const struct sow_region *regions[6];
    static const char *name[6] = {"slot A", "slot B", "download", "journal", "boot", "scratch"};
    /* What firmware-stub/device/budget promises of this layout; every fourth update is swapped twice. */
    static const unsigned budget[6] = {1, 3, 1, 1, 3, 2};

    kit_open(&k, &l, 1500, 3);
    k.arena_size = 1024;
    regions[0] = &k.map.slot_a;
    regions[1] = &k.map.slot_b;
    regions[2] = &k.map.download;
    regions[3] = &k.map.journal;
    regions[4] = &k.map.boot;
    regions[5] = &k.map.scratch;
    for (unsigned u = 1; u <= updates; u++) {
        struct sow_boot_status boot;
        uint8_t f[255];
        int r = SOW_OK;

        snprintf(context, sizeof context, "soak %u", u);
        make_bundle(&b, &k, SOW_CODEC_PATCH, 1400 + u % 200, u, 40, SOW_MATRIX_V2);
        CHECK(kit_start(&k) == SOW_OK);
        CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
        for (uint16_t n = 1; r != SOW_DONE; n++) {
            if (n % 10 == 3)
                continue;
            make_fragment(&b, n, f);
            CHECK(sow_core_fragment(&k.core, 0, n, f, 40) >= 0);
            r = kit_work(&k);
            CHECK(r >= 0);
        }
        CHECK(sow_core_install(&k.core) == SOW_OK);
        CHECK(kit_start(&k) == SOW_OK);
        sow_boot_read(&k.config, &boot);
        CHECK(boot.state == SOW_BOOT_TRIAL);
        if (u % 4 == 0) {
            CHECK(sow_boot_reject(&k.config, SOW_CAUSE_SELF_TEST_FAILED) == SOW_OK);
            CHECK(kit_start(&k) == SOW_OK);
        } else {
            CHECK(sow_boot_confirm(&k.config) == SOW_OK);
            memcpy(k.old, b.image, b.image_size);
            k.old_size = b.image_size;
        }
        CHECK(holds(&k.map.slot_a, k.old, k.old_size));
    }
    printf("soak               %6u updates, every 4th rolled back; erases per update of the most worn page:\n                   ",
           updates);
    for (unsigned i = 0; i < 6; i++) {
        uint32_t worst = 0;

        for (uint32_t at = 0; at < regions[i]->size; at += l.page)
            if (sow_flash_emu_wear(&k.flash, regions[i]->addr + at) > worst)
                worst = sow_flash_emu_wear(&k.flash, regions[i]->addr + at);
        CHECK(4 * worst <= 5 * budget[i] * updates);
        printf("%s %.2f%s", name[i], (double)worst / updates, i < 5 ? ", " : "\n");
    }
    kit_close(&k);
}

static void whole_life(const char *name, const struct layout *l, uint8_t codec, uint8_t matrix, unsigned losses,
                       uint8_t frag_size, unsigned step)
{
    struct server start = {1, losses, 99};
    char what[100];
    uint32_t total;
    void *snapshot;

    kit_open(&k, l, 700, 3);
    k.arena_size = 1024;
    make_bundle(&b, &k, codec, 800, 5, frag_size, matrix);
    snapshot = malloc(sow_flash_emu_snapshot_size(&k.flash));
    sow_flash_emu_save(&k.flash, snapshot);
    snprintf(what, sizeof what, "%s: receive, install, confirm", name);
    total = cut_everywhere(what, snapshot, &start, CONFIRM, step);
    cut_twice(what, snapshot, &start, CONFIRM, total, getenv("SOWER_PROOF") != 0 ? 100000 : 2000);
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
    start = server;
    snprintf(what, sizeof what, "%s: reject, roll back", name);
    total = cut_everywhere(what, snapshot, &start, REJECT, step);
    cut_twice(what, snapshot, &start, REJECT, total, getenv("SOWER_PROOF") != 0 ? 50000 : 1000);
    snprintf(what, sizeof what, "%s: hang, roll back", name);
    cut_everywhere(what, snapshot, &start, HANG, step);
    free(snapshot);
    kit_close(&k);
}

/* A patch of the real encoder between two small images, the old one in slot A. */
static void make_delta(uint32_t sequence, uint8_t frag_size, uint8_t matrix)
{
    memset(&b, 0, sizeof b);
    CHECK(sow_flash_emu_erase(&k.flash, k.map.slot_a.addr, k.map.slot_a.size) == 0);
    CHECK(sow_flash_emu_load(&k.flash, k.map.slot_a.addr, delta_old, sizeof delta_old) == 0);
    memcpy(k.old, delta_old, sizeof delta_old);
    k.old_size = sizeof delta_old;
    memcpy(b.image, delta_new, sizeof delta_new);
    b.image_size = sizeof delta_new;
    begin_bundle(&b, &k, SOW_CODEC_PATCH, 0x02000000, sequence, delta_stream, sizeof delta_stream);
    b.block[11] = DELTA_RAM / 256;
    put(b.block + 33, DELTA_LINK_BASE >> 8, 3);
    put(b.block + 36, DELTA_SCRATCH / 64, 2);
    b.block[38] = DELTA_PROFILE;
    b.block[39] = DELTA_OPTIONS;
    end_bundle(&b, &k, sequence, frag_size, matrix);
}

/* A patch that the real decoder has to start over after each reset: every operation from the complete block to the
 * image that runs, and the decoder's map in scratch among them. */
static void replay_and_skip(void)
{
    static const struct layout l = {128, 8, 1024, 2048, 1024, 512, 512, 0xff};
    struct server start = {1, 30, 99};
    uint32_t total;
    void *snapshot;

    snprintf(context, sizeof context, "replay");
    kit_open(&k, &l, 700, 3);
    k.arena_size = 5632;
    make_delta(5, 24, SOW_MATRIX_V2);
    server = start;
    CHECK(kit_start(&k) == SOW_OK);
    give_session();
    while (k.core.at.phase != SOW_CORE_JUDGE) {
        CHECK(sow_core_work(&k.core) >= 0);
        if (k.core.at.phase == SOW_CORE_COLLECT)
            give_fragment();
    }
    start = server;
    snapshot = malloc(sow_flash_emu_snapshot_size(&k.flash));
    sow_flash_emu_save(&k.flash, snapshot);
    total = cut_everywhere("patch decoded again after each cut: verify, patch, install, confirm", snapshot, &start, CONFIRM, 1);
    cut_twice("patch decoded again", snapshot, &start, CONFIRM, total, getenv("SOWER_PROOF") != 0 ? 20000 : 500);
    free(snapshot);
    kit_close(&k);
}

void power_tests(void)
{
    static const struct layout g8 = {256, 8, 1024, 2048, 1024, 512, 512, 0xff};
    static const struct layout roomy = {256, 8, 1024, 5120, 1024, 512, 512, 0xff};
    static const struct layout g16 = {512, 16, 1024, 3072, 1024, 1024, 512, 0x00};

    whole_life("patch, v2, 30 % loss, 8-byte granules", &g8, SOW_CODEC_PATCH, SOW_MATRIX_V2, 30, 24, 1);
    whole_life("full, v1, 20 % loss, 16-byte granules", &g16, SOW_CODEC_FULL, SOW_MATRIX_V1, 20, 32, 1);
    whole_life("full, v2, 30 % loss, rows in the download area", &roomy, SOW_CODEC_FULL, SOW_MATRIX_V2, 30, 24, 2);
    replay_and_skip();
    spares_run_out();
    soak(getenv("SOWER_PROOF") != 0 ? 2000 : 200);
    printf("power cuts         %6lu runs, 0 failures\n", runs);
}
