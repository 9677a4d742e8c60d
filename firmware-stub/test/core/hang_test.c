/* A watchdog that resets the device at one and the same place of the long work, as often as it gets there. */
#include <setjmp.h>

#include "kit.h"
#include "sow_core_private.h"
#include "tests.h"

static struct kit k;
static struct bundle b;

static struct {
    jmp_buf reset;
    int armed;
    const struct sow_region *spare; /* reads of the journal go through: the slice is cut in its midst */
} watchdog;

static int slow_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    if (watchdog.armed && addr - watchdog.spare->addr >= watchdog.spare->size)
        longjmp(watchdog.reset, 1);
    return sow_flash_emu_read(user, addr, buf, len);
}

/* Where the core stands in its long work. */
struct place {
    uint8_t phase, judge;
    uint32_t pos;
};

static int stands_at(const struct place *p)
{
    return k.core.at.phase == p->phase && k.core.at.judge == p->judge && k.core.pos == p->pos;
}

/* A device that has received all it needs; the manifest is judged only then, or on the way. */
static void received(int early)
{
    uint8_t f[255];

    sow_flash_emu_erase(&k.flash, k.map.slot_a.addr, k.map.slot_a.size);
    CHECK(sow_flash_emu_load(&k.flash, k.map.slot_a.addr, k.old, k.old_size) == 0);
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK && kit_work(&k) == SOW_OK);
    for (uint16_t n = 1; k.core.at.phase == SOW_CORE_COLLECT; n++) {
        if (n % 5 == 0)
            continue;
        make_fragment(&b, n, f);
        CHECK(sow_core_fragment(&k.core, 0, n, f, b.session.frag_size) >= 0);
        if (early && sow_fec_head_known(&k.core, SOW_MANIFEST_SIZE))
            break;
    }
}

/* Work until it is done or has stopped, with a watchdog that bites at that place. Returns the resets. */
static unsigned bitten_at(const struct place *where)
{
    volatile unsigned resets = 0;

    (void)setjmp(watchdog.reset);
    if (watchdog.armed) {
        watchdog.armed = 0;
        CHECK(++resets < 20); /* or the device is lost for good */
        CHECK(kit_start(&k) >= 0);
    }
    for (;;) {
        int r;

        watchdog.armed = stands_at(where);
        r = sow_core_work(&k.core);
        watchdog.armed = 0;
        if (r != SOW_MORE)
            return resets;
    }
}

static unsigned places_of_a_life(int early, const void *snapshot)
{
    struct place seen[400];
    unsigned n = 0, bitten = 0;

    sow_flash_emu_restore(&k.flash, snapshot);
    CHECK(kit_start(&k) >= 0);
    do {
        CHECK(n < 400);
        seen[n].phase = k.core.at.phase;
        seen[n].judge = k.core.at.judge;
        seen[n++].pos = k.core.pos;
    } while (sow_core_work(&k.core) == SOW_MORE);
    for (unsigned i = 0; i < n; i++) {
        struct sow_status st;
        unsigned resets;

        snprintf(context, sizeof context, "hang in phase %u at %u", seen[i].phase, (unsigned)seen[i].pos);
        sow_flash_emu_restore(&k.flash, snapshot);
        CHECK(kit_start(&k) >= 0);
        resets = bitten_at(&seen[i]);
        sow_core_status(&k.core, 0, &st);
        CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_a.addr), k.old, k.old_size) == 0);
        if (resets < SOW_CORE_TRIES) { /* solved slots are not solved again: that place is passed over */
            CHECK(resets <= 1 && (early ? st.cause == SOW_CAUSE_OK : st.step == SOW_STEP_READY));
            continue;
        }
        bitten++;
        CHECK(resets <= SOW_CORE_TRIES + 1);
        CHECK(st.cause == SOW_CAUSE_NO_PROGRESS && st.missing != 0);
        CHECK(st.step == (early ? SOW_STEP_MANIFEST
                          : seen[i].phase == SOW_CORE_WRITE || seen[i].phase == SOW_CORE_HASH ? SOW_STEP_PATCH
                                                                                              : SOW_STEP_VERIFY));
        /* It stays so, and the same update may be tried again. */
        CHECK(kit_start(&k) == SOW_OK && sow_core_work(&k.core) == SOW_OK);
        CHECK(sow_core_fragment(&k.core, 0, 1, b.block, b.session.frag_size) == -SOW_CAUSE_NO_PROGRESS);
        b.session.session_cnt++;
        set_mic(&b, &k);
        received(0);
        CHECK(kit_work(&k) == SOW_DONE);
        b.session.session_cnt--;
        set_mic(&b, &k);
    }
    return bitten;
}

/* Resets without end that let one page pass each: that is slow, and no failure. So is an answer that is "later" for
 * a hundred resets, and a reset after each fragment (update_test.c). */
static void slow_but_steady(const void *snapshot, uint32_t page)
{
    unsigned resets = 0;
    uint32_t done;

    snprintf(context, sizeof context, "slow but steady");
    sow_flash_emu_restore(&k.flash, snapshot);
    k.consent = SOW_CONSENT_LATER;
    k.consent_cause = SOW_CAUSE_DEFERRED_BATTERY;
    for (unsigned i = 0; i < 100; i++) {
        CHECK(kit_start(&k) >= 0);
        CHECK(kit_work(&k) == SOW_OK && k.core.at.cause == SOW_CAUSE_DEFERRED_BATTERY);
    }
    k.consent = SOW_CONSENT_YES;
    do {
        CHECK(kit_start(&k) >= 0);
        for (unsigned fruitless = k.core.at.done > 3 * page ? 7 : 0; fruitless > 0; fruitless--) {
            CHECK(sow_core_work(&k.core) == SOW_MORE);
            CHECK(kit_start(&k) >= 0);
            resets++;
        }
        done = k.core.at.done;
        while (k.core.at.phase != SOW_CORE_READY && (k.core.at.phase != SOW_CORE_WRITE || k.core.at.done == done))
            CHECK(sow_core_work(&k.core) >= 0);
        resets++;
    } while (k.core.at.phase != SOW_CORE_READY);
    CHECK(resets > 40);
    CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_b.addr), b.image, b.image_size) == 0);
}

void hang_tests(void)
{
    static const struct layout l = {256, 8, 4096, 10240, 2048, 1024, 512, 0xff};
    unsigned bitten;
    void *snapshot;

    for (int early = 1; early >= 0; early--) {
        kit_open(&k, &l, 3000, 3);
        k.port.read = slow_read;
        watchdog.spare = &k.map.journal;
        make_bundle(&b, &k, SOW_CODEC_PATCH, 3100, 5, 48, SOW_MATRIX_V2);
        received(early);
        snapshot = malloc(sow_flash_emu_snapshot_size(&k.flash));
        sow_flash_emu_save(&k.flash, snapshot);
        bitten = places_of_a_life(early, snapshot);
        CHECK(early ? bitten > 1 : bitten > 40);
        if (!early)
            slow_but_steady(snapshot, l.page);
        free(snapshot);
        kit_close(&k);
        printf("watchdog           %6u places of %s where it bites for ever: given up, slot A intact, updated later\n",
               bitten, early ? "the early judgement" : "solving, verifying, patching");
    }
}
